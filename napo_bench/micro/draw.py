"""Images of scenes, drawn from hand-written vector shapes with PIL: 256 px for the reader, 64 px for the model.

A shape is a function of a `Pen` and looks to the right. The pen's canvas has 100 x 100 units, with y downwards.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from napo_bench.micro.world import COLUMNS, Scene

SIZE = 256
MODEL_SIZE = 64
CELL = SIZE // COLUMNS
_SCALE = 4
_SPRITE = 60

RGB = tuple[int, int, int]
PALETTE: dict[str, RGB] = {
    "red": (212, 36, 40),
    "yellow": (248, 206, 36),
    "green": (40, 150, 62),
    "blue": (44, 88, 214),
    "pink": (250, 136, 190),
    "brown": (134, 82, 40),
    "white": (248, 248, 248),
    "gray": (142, 146, 152),
    "black": (42, 42, 48),
}
INK: RGB = (28, 26, 32)
GLASS: RGB = (196, 226, 240)
STEEL: RGB = (96, 100, 108)
WOOD: RGB = (150, 104, 62)
LEAF: RGB = (70, 140, 60)
GOLD: RGB = (236, 170, 40)


def _mix(one: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


class Pen:
    """Draws on a square canvas in units of a hundredth of its side.

    Attributes:
        body: The object's colour.
        shade: A darker tone of the body, or a lighter tone if the body is dark.
        light: A paler tone of the body.
    """

    def __init__(self, color: RGB, pixels: int) -> None:
        self.canvas = Image.new("RGBA", (pixels, pixels), (*color, 0))
        self._draw = ImageDraw.Draw(self.canvas)
        self._unit = pixels / 100
        dark = sum(color) < 200
        self.body = color
        self.shade = _mix(color, (255, 255, 255), 0.35) if dark else _mix(color, (0, 0, 0), 0.35)
        self.light = _mix(color, (255, 255, 255), 0.55)

    def _scaled(self, *values: float) -> list[float]:
        return [value * self._unit for value in values]

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        """An ellipse around (x, y)."""
        self._draw.ellipse(self._scaled(x - rx, y - ry, x + rx, y + ry), fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: RGB, round_by: float = 0) -> None:
        """A rectangle, its corners rounded."""
        self._draw.rounded_rectangle(self._scaled(left, top, right, bottom), round_by * self._unit, fill=fill)

    def shape(self, fill: RGB, *points: float) -> None:
        """A polygon through x, y, x, y, ..."""
        self._draw.polygon(self._scaled(*points), fill=fill)

    def line(self, fill: RGB, width: float, *points: float) -> None:
        """A line through x, y, x, y, ... with round joints and ends."""
        scaled = self._scaled(*points)
        self._draw.line(scaled, fill=fill, width=round(width * self._unit), joint="curve")
        for x, y in ((points[0], points[1]), (points[-2], points[-1])):
            self.oval(x, y, width / 2, width / 2, fill)

    def arc(self, x: float, y: float, r: float, start: float, end: float, fill: RGB, width: float) -> None:
        """An arc of a circle around (x, y), degrees clockwise from three o'clock."""
        box = self._scaled(x - r, y - r, x + r, y + r)
        self._draw.arc(box, start, end, fill=fill, width=round(width * self._unit))

    def pie(self, x: float, y: float, rx: float, ry: float, start: float, end: float, fill: RGB) -> None:
        """A sector of an ellipse, degrees clockwise from three o'clock."""
        self._draw.pieslice(self._scaled(x - rx, y - ry, x + rx, y + ry), start, end, fill=fill)

    def cut_oval(self, x: float, y: float, rx: float, ry: float) -> None:
        """Erase an ellipse."""
        self._draw.ellipse(self._scaled(x - rx, y - ry, x + rx, y + ry), fill=(*self.body, 0))

    def wheel(self, x: float, y: float, r: float) -> None:
        """A tyre with a rim."""
        self.oval(x, y, r, r, INK)
        self.oval(x, y, r * 0.5, r * 0.5, (206, 208, 212))

    def eye(self, x: float, y: float) -> None:
        """A dark eye with a glint, visible on any colour."""
        self.oval(x, y, 4, 4, (255, 255, 255))
        self.oval(x + 0.8, y, 2.6, 2.6, INK)

    def legs(self, top: float, bottom: float, width: float, *xs: float) -> None:
        """Straight legs; the second half of them is in front."""
        for index, x in enumerate(xs):
            fill = self.shade if index < len(xs) // 2 else self.body
            self.box(x - width / 2, top, x + width / 2, bottom, fill, 2)


def _cow(p: Pen) -> None:
    p.legs(58, 92, 8, 26, 64, 16, 54)
    p.line(p.shade, 4, 11, 40, 5, 52, 6, 66)
    p.box(9, 32, 70, 68, p.body, 13)
    patch = (252, 252, 250) if sum(p.body) < 640 else INK
    p.oval(26, 44, 10, 8, patch)
    p.oval(51, 54, 11, 7, patch)
    p.oval(42, 69, 8, 5, (244, 172, 180))
    p.box(64, 20, 86, 54, p.body, 8)
    p.oval(78, 52, 13, 9, (244, 188, 190))
    p.oval(82, 51, 2, 2.5, INK)
    p.line((240, 228, 196), 5, 66, 20, 61, 10)
    p.line((240, 228, 196), 5, 83, 20, 89, 10)
    p.oval(60, 27, 7, 4, p.shade)
    p.eye(78, 34)


def _horse(p: Pen) -> None:
    p.legs(58, 95, 7, 24, 56, 14, 64)
    p.line(p.shade, 8, 12, 42, 4, 52, 5, 74)
    p.oval(38, 51, 28, 16, p.body)
    p.shape(p.body, 50, 56, 68, 50, 82, 22, 68, 8)
    p.shape(p.body, 66, 10, 74, 6, 97, 32, 90, 42, 72, 30)
    p.shape(p.shade, 69, 4, 60, 12, 42, 42, 54, 44, 66, 22, 76, 10)
    p.shape(p.body, 70, 10, 71, -1, 78, 9)
    p.oval(92, 36, 5, 5, p.shade)
    p.eye(79, 19)


def _sheep(p: Pen) -> None:
    p.legs(66, 94, 7, 34, 60, 24, 52)
    for x, y, r in ((22, 52, 15), (34, 38, 16), (52, 36, 16), (66, 48, 14), (56, 62, 15), (36, 64, 16), (44, 50, 20)):
        p.oval(x, y, r, r, p.body)
    for x, y in ((28, 44), (44, 40), (36, 58), (54, 54)):
        p.arc(x, y, 7, 20, 250, p.shade, 3)
    p.oval(79, 46, 12, 16, INK if sum(p.body) > 300 else (224, 214, 200))
    p.oval(68, 40, 7, 4, INK if sum(p.body) > 300 else (224, 214, 200))
    p.oval(77, 31, 11, 7, p.body)
    p.eye(83, 44)


def _dog(p: Pen) -> None:
    p.line(p.body, 7, 18, 52, 8, 40, 8, 26)
    p.legs(62, 93, 8, 28, 58, 20, 50)
    p.box(15, 48, 64, 72, p.body, 11)
    p.shape(p.body, 50, 62, 50, 34, 70, 34, 66, 66)
    p.box(48, 18, 76, 46, p.body, 11)
    p.box(64, 30, 94, 46, p.body, 7)
    p.oval(92, 33, 5, 4, INK)
    p.box(46, 18, 58, 46, p.shade, 6)
    p.eye(70, 27)
    p.line((214, 40, 50), 5, 50, 49, 66, 51)


def _car(p: Pen) -> None:
    p.shape(p.body, 22, 50, 34, 28, 66, 28, 82, 50)
    p.box(4, 46, 97, 72, p.body, 8)
    p.shape(GLASS, 30, 48, 37, 33, 49, 33, 49, 48)
    p.shape(GLASS, 54, 48, 54, 33, 64, 33, 73, 48)
    p.box(88, 52, 97, 59, (255, 240, 160), 2)
    p.line(p.shade, 2, 52, 50, 52, 70)
    p.wheel(25, 72, 12)
    p.wheel(75, 72, 12)


def _bus(p: Pen) -> None:
    p.box(3, 18, 97, 78, p.body, 7)
    for x in (9, 27, 45, 63):
        p.box(x, 27, x + 14, 46, GLASS, 2)
    p.box(81, 27, 95, 62, GLASS, 2)
    p.box(3, 54, 80, 60, p.shade)
    p.wheel(24, 79, 11)
    p.wheel(74, 79, 11)


def _bicycle(p: Pen) -> None:
    for x in (24, 76):
        p.arc(x, 66, 22, 0, 360, INK, 5)
        p.oval(x, 66, 3, 3, INK)
    p.line(p.body, 7, 24, 66, 48, 66, 68, 36, 36, 36, 24, 66)
    p.line(p.body, 7, 48, 66, 34, 30)
    p.line(p.body, 7, 76, 66, 65, 24)
    p.line(INK, 6, 26, 28, 42, 28)
    p.line(INK, 5, 65, 24, 78, 20)


def _truck(p: Pen) -> None:
    p.box(3, 20, 64, 72, p.body, 3)
    for x in (18, 33, 48):
        p.line(p.shade, 3, x, 25, x, 66)
    p.shape(STEEL, 66, 34, 84, 34, 97, 52, 97, 74, 66, 74)
    p.shape(GLASS, 71, 39, 82, 39, 91, 53, 71, 53)
    p.box(3, 70, 97, 76, INK)
    p.wheel(20, 78, 11)
    p.wheel(46, 78, 11)
    p.wheel(82, 78, 11)


def _apple(p: Pen) -> None:
    p.oval(36, 58, 28, 32, p.body)
    p.oval(64, 58, 28, 32, p.body)
    p.oval(50, 64, 26, 28, p.body)
    p.line((92, 58, 30), 6, 50, 34, 54, 12)
    p.shape(LEAF, 55, 22, 66, 8, 86, 10, 74, 22)
    p.oval(30, 48, 7, 10, p.light)


def _banana(p: Pen) -> None:
    p.oval(46, 42, 45, 46, p.body)
    p.cut_oval(38, 22, 44, 44)
    p.line((96, 68, 30), 9, 84, 22, 90, 8)
    p.oval(12, 66, 5, 5, (96, 68, 30))


def _cup(p: Pen) -> None:
    p.arc(72, 54, 18, 0, 360, p.body, 8)
    p.shape(p.body, 14, 26, 74, 26, 68, 84, 20, 84)
    p.oval(44, 84, 24, 7, p.body)
    p.oval(44, 26, 30, 9, p.shade)
    p.oval(44, 28, 24, 6, (92, 56, 34))
    for x in (32, 50):
        p.line((214, 218, 226), 4, x, 14, x + 5, 8, x, 1)


def _bottle(p: Pen) -> None:
    p.box(42, 4, 58, 12, (180, 142, 96), 2)
    p.box(43, 11, 57, 40, p.body)
    p.shape(p.body, 43, 30, 57, 30, 70, 48, 30, 48)
    p.box(30, 44, 70, 97, p.body, 6)
    p.box(30, 58, 70, 80, (250, 244, 224))
    p.line(p.shade, 3, 37, 66, 63, 66)
    p.line(p.shade, 3, 37, 73, 56, 73)


def _bench(p: Pen) -> None:
    for x in (14, 86):
        p.line(STEEL, 6, x, 26, x, 92)
    for y in (26, 40):
        p.box(4, y, 96, y + 10, p.body, 3)
    p.shape(p.body, 4, 58, 96, 58, 99, 70, 1, 70)
    p.line(p.shade, 2, 3, 64, 97, 64)


def _bird(p: Pen) -> None:
    p.shape(p.shade, 30, 56, 2, 70, 6, 52, 28, 44)
    p.oval(46, 54, 28, 18, p.body)
    p.oval(74, 38, 15, 15, p.body)
    p.shape(GOLD, 86, 32, 100, 40, 86, 45)
    p.shape(p.shade, 32, 48, 62, 46, 52, 8, 30, 16, 20, 8)
    p.line(GOLD, 4, 46, 70, 44, 84)
    p.line(GOLD, 4, 56, 70, 56, 84)
    p.eye(78, 35)


def _kite(p: Pen) -> None:
    p.line(INK, 3, 48, 62, 56, 76, 42, 86, 50, 98)
    for x, y in ((54, 76), (45, 87)):
        p.shape(p.shade, x - 9, y - 5, x, y, x - 9, y + 5)
        p.shape(p.shade, x + 9, y - 5, x, y, x + 9, y + 5)
    p.shape(p.body, 50, 2, 84, 28, 48, 66, 16, 28)
    p.shape(p.shade, 50, 2, 84, 28, 50, 28)
    p.shape(p.shade, 50, 28, 48, 66, 16, 28)


def _skateboard(p: Pen) -> None:
    p.line(p.body, 13, 5, 46, 18, 56, 82, 56, 95, 46)
    p.box(24, 60, 34, 68, STEEL)
    p.box(66, 60, 76, 68, STEEL)
    for x in (22, 36, 64, 78):
        p.oval(x, 74, 8, 8, (250, 150, 40))
        p.oval(x, 74, 3, 3, INK)


def _boat(p: Pen) -> None:
    p.line((110, 74, 44), 5, 48, 6, 48, 70)
    p.shape((250, 244, 226), 52, 8, 52, 58, 90, 58)
    p.shape((226, 214, 186), 44, 16, 44, 58, 14, 58)
    p.shape(p.body, 2, 64, 98, 64, 80, 92, 20, 92)
    p.line(p.shade, 4, 12, 74, 88, 74)


def _surfboard(p: Pen) -> None:
    p.oval(50, 50, 18, 49, p.body)
    p.line(p.light if sum(p.body) < 650 else p.shade, 5, 50, 5, 50, 95)
    p.line((255, 255, 255) if sum(p.body) < 650 else INK, 4, 35, 30, 65, 22)
    p.line((255, 255, 255) if sum(p.body) < 650 else INK, 4, 34, 40, 66, 32)
    p.shape(p.shade, 50, 88, 64, 99, 50, 98)


def _umbrella(p: Pen) -> None:
    p.line((110, 74, 44), 5, 50, 10, 50, 88)
    p.arc(58, 86, 9, 0, 180, (110, 74, 44), 5)
    p.pie(50, 54, 47, 46, 180, 360, p.body)
    p.pie(50, 54, 17, 46, 180, 360, p.shade)
    for x in (18, 50, 82):
        p.cut_oval(x, 57, 16, 8)
    p.line((110, 74, 44), 5, 50, 52, 50, 88)


def _airplane(p: Pen) -> None:
    p.shape(p.shade, 46, 46, 66, 46, 44, 14, 32, 14)
    p.shape(p.body, 4, 22, 16, 22, 30, 46, 12, 46)
    p.shape(p.body, 6, 44, 80, 40, 96, 48, 98, 54, 88, 60, 24, 60)
    p.shape(p.shade, 36, 54, 62, 54, 36, 90, 22, 90)
    for x in (34, 46, 58, 70):
        p.oval(x, 48, 3.4, 3.4, GLASS)
    p.shape(GLASS, 82, 44, 92, 48, 82, 50)


def _elephant(p: Pen) -> None:
    p.legs(60, 94, 13, 30, 60, 17, 48)
    p.line(p.shade, 4, 9, 46, 4, 64)
    p.oval(36, 48, 30, 26, p.body)
    p.oval(70, 40, 19, 20, p.body)
    p.line(p.body, 11, 84, 42, 91, 62, 90, 82, 96, 88)
    p.line((255, 250, 232), 5, 78, 57, 88, 66)
    p.oval(58, 40, 14, 20, p.shade)
    p.oval(57, 40, 10, 15, p.light)
    p.eye(77, 35)


def _giraffe(p: Pen) -> None:
    p.legs(62, 97, 6, 30, 54, 20, 46)
    p.line(p.shade, 3, 14, 56, 9, 72)
    p.oval(36, 58, 23, 12, p.body)
    p.shape(p.body, 42, 58, 58, 58, 74, 12, 62, 10)
    p.shape(p.body, 60, 8, 74, 4, 92, 16, 90, 23, 68, 22)
    p.line(p.shade, 3, 66, 8, 64, -2)
    p.line(p.shade, 3, 71, 6, 71, -3)
    spot = (120, 70, 30) if p.body != PALETTE["brown"] else (238, 214, 160)
    for x, y in ((24, 56), (36, 53), (46, 60), (34, 64), (54, 46), (58, 36), (63, 25)):
        p.oval(x, y, 4, 3.6, spot)
    p.eye(77, 12)


def _bear(p: Pen) -> None:
    p.oval(50, 76, 32, 24, p.body)
    p.oval(50, 80, 18, 15, p.light)
    for x in (24, 76):
        p.oval(x, 94, 14, 6, p.shade)
        p.oval(x, 12, 13, 12, p.body)
        p.oval(x, 13, 7, 6, p.shade)
    p.oval(50, 36, 34, 30, p.body)
    p.oval(62, 46, 18, 13, p.light)
    p.oval(68, 40, 7, 5, INK)
    p.eye(48, 28)
    p.eye(72, 28)


def _zebra(p: Pen) -> None:
    pale = (255, 255, 255) if sum(p.body) < 640 else (150, 152, 158)
    p.legs(58, 94, 8, 26, 60, 16, 52)
    p.box(10, 36, 68, 66, pale, 12)
    p.shape(pale, 52, 54, 68, 56, 84, 26, 72, 10)
    p.shape(pale, 70, 12, 80, 8, 98, 32, 90, 41, 74, 32)
    for x in (16, 28, 40, 52):
        p.line(p.body, 6, x, 38, x - 2, 64)
    for x, y in ((58, 46), (64, 34), (70, 22)):
        p.line(p.body, 5, x, y, x + 13, y + 5)
    p.line(p.body, 6, 72, 6, 60, 18, 50, 40)
    p.oval(93, 36, 6, 5, p.body)
    p.eye(82, 20)


def _couch(p: Pen) -> None:
    p.box(10, 24, 90, 66, p.shade, 10)
    p.box(16, 52, 84, 76, p.body, 4)
    p.line(p.shade, 3, 50, 54, 50, 74)
    p.box(1, 40, 20, 82, p.body, 8)
    p.box(80, 40, 99, 82, p.body, 8)
    p.box(10, 80, 17, 92, WOOD)
    p.box(83, 80, 90, 92, WOOD)


def _cat(p: Pen) -> None:
    p.line(p.shade, 7, 24, 86, 6, 80, 6, 56, 14, 46)
    p.oval(40, 70, 24, 26, p.body)
    p.oval(60, 40, 26, 22, p.body)
    p.shape(p.body, 38, 34, 38, 4, 58, 20)
    p.shape(p.body, 62, 20, 82, 4, 84, 34)
    p.shape((246, 170, 180), 43, 24, 43, 12, 52, 20)
    p.shape((246, 170, 180), 68, 20, 78, 12, 79, 24)
    p.eye(58, 38)
    p.eye(76, 38)
    p.shape((240, 130, 150), 64, 46, 72, 46, 68, 51)
    for y in (46, 52):
        p.line(p.shade, 2, 76, y, 96, y - 3 + (y - 46))
    p.box(40, 80, 50, 96, p.body, 4)
    p.box(54, 80, 62, 96, p.body, 4)


def _clock(p: Pen) -> None:
    p.oval(50, 50, 46, 46, STEEL)
    p.oval(50, 50, 40, 40, p.body)
    hand = INK if sum(p.body) > 300 else (250, 250, 250)
    for x, y in ((50, 16), (84, 50), (50, 84), (16, 50)):
        p.oval(x, y, 4, 4, hand)
    p.line(hand, 6, 50, 50, 50, 24)
    p.line(hand, 6, 50, 50, 70, 60)


def _vase(p: Pen) -> None:
    for x, y, flower in ((30, 16, (226, 60, 80)), (50, 10, (250, 190, 40)), (70, 16, (170, 90, 200))):
        p.line(LEAF, 4, 50, 52, x, y + 6)
        p.oval(x, y, 10, 9, flower)
        p.oval(x, y, 4, 3.6, (255, 244, 190))
    p.box(38, 42, 62, 58, p.body)
    p.oval(50, 74, 28, 22, p.body)
    p.box(36, 40, 64, 46, p.shade, 2)
    p.box(36, 90, 64, 97, p.shade, 2)
    p.line(p.shade, 4, 26, 72, 74, 72)


SHAPES: dict[str, Callable[[Pen], None]] = {
    "cow": _cow,
    "horse": _horse,
    "sheep": _sheep,
    "dog": _dog,
    "car": _car,
    "bus": _bus,
    "bicycle": _bicycle,
    "truck": _truck,
    "apple": _apple,
    "banana": _banana,
    "cup": _cup,
    "bottle": _bottle,
    "bench": _bench,
    "bird": _bird,
    "kite": _kite,
    "skateboard": _skateboard,
    "boat": _boat,
    "surfboard": _surfboard,
    "umbrella": _umbrella,
    "airplane": _airplane,
    "elephant": _elephant,
    "giraffe": _giraffe,
    "bear": _bear,
    "zebra": _zebra,
    "couch": _couch,
    "cat": _cat,
    "clock": _clock,
    "vase": _vase,
}


def _farm(p: Pen) -> None:
    p.box(0, 0, 100, 30, (176, 218, 244))
    p.box(0, 24, 100, 100, (150, 196, 96))
    p.shape((178, 60, 48), 66, 24, 66, 10, 76, 3, 86, 10, 86, 24)
    p.box(72, 13, 80, 24, (240, 226, 204))
    for x in range(2, 64, 8):
        p.line((214, 190, 150), 1.4, x, 18, x, 27)
    p.line((214, 190, 150), 1.2, 0, 20, 62, 20)
    p.line((214, 190, 150), 1.2, 0, 24, 62, 24)
    for y in (44, 62, 82):
        p.line((134, 180, 84), 1.2, 0, y, 100, y - 4)


def _street(p: Pen) -> None:
    p.box(0, 0, 100, 26, (206, 216, 226))
    for x, top, fill in (
        (0, 8, (176, 150, 140)),
        (20, 3, (150, 164, 184)),
        (44, 10, (196, 178, 150)),
        (70, 4, (160, 150, 170)),
    ):
        p.box(x, top, x + 24, 28, fill)
        for window in range(x + 3, x + 21, 7):
            for y in range(top + 3, 24, 6):
                p.box(window, y, window + 3, y + 3, (246, 238, 196))
    p.box(0, 26, 100, 34, (206, 202, 194))
    p.box(0, 34, 100, 100, (112, 114, 122))
    for x in range(4, 100, 20):
        p.box(x, 65, x + 10, 67, (240, 236, 220))


def _kitchen(p: Pen) -> None:
    p.box(0, 0, 100, 46, (222, 238, 236))
    for x in range(0, 100, 10):
        p.line((190, 214, 212), 0.8, x, 0, x, 46)
    for y in range(4, 46, 10):
        p.line((190, 214, 212), 0.8, 0, y, 100, y)
    p.box(6, 0, 40, 14, (186, 134, 84), 1)
    p.box(60, 0, 94, 14, (186, 134, 84), 1)
    p.line((140, 96, 56), 1, 23, 0, 23, 14)
    p.line((140, 96, 56), 1, 77, 0, 77, 14)
    p.box(0, 46, 100, 100, (214, 174, 124))
    for y in (62, 80):
        p.line((194, 152, 102), 1, 0, y, 100, y)


def _park(p: Pen) -> None:
    p.box(0, 0, 100, 34, (186, 226, 246))
    for x, r in ((8, 13), (30, 10), (58, 12), (84, 14)):
        p.box(x - 1.5, 16, x + 1.5, 30, (120, 84, 54))
        p.oval(x, 13, r, r * 0.8, (84, 156, 80))
    p.box(0, 28, 100, 100, (126, 190, 110))
    p.shape((226, 208, 168), 40, 28, 50, 28, 96, 100, 44, 100)


def _beach(p: Pen) -> None:
    p.box(0, 0, 100, 20, (196, 230, 250))
    p.oval(86, 9, 6, 6, (255, 224, 110))
    p.box(0, 18, 100, 46, (78, 164, 206))
    for x in range(0, 100, 16):
        p.line((214, 238, 248), 1, x + 2, 28, x + 9, 28)
        p.line((214, 238, 248), 1, x + 8, 38, x + 15, 38)
    p.box(0, 45, 100, 49, (236, 246, 248))
    p.box(0, 48, 100, 100, (240, 218, 160))


def _zoo(p: Pen) -> None:
    p.box(0, 0, 100, 32, (172, 182, 176))
    for x, y in ((2, 4), (30, 1), (58, 5), (80, 2), (14, 15), (44, 14), (72, 16)):
        p.box(x, y, x + 20, y + 9, (146, 154, 150), 3)
    for x in range(0, 101, 6):
        p.line((84, 92, 96), 1.2, x, 0, x, 30)
    p.line((84, 92, 96), 1.4, 0, 2, 100, 2)
    p.line((84, 92, 96), 1.4, 0, 29, 100, 29)
    p.box(0, 31, 100, 100, (222, 196, 150))
    for x, y in ((16, 54), (64, 46), (40, 78), (84, 88)):
        p.oval(x, y, 9, 3, (206, 178, 130))


def _room(p: Pen) -> None:
    p.box(0, 0, 100, 52, (216, 200, 226))
    for x in range(5, 100, 10):
        p.line((204, 186, 216), 1.6, x, 0, x, 52)
    p.box(60, 3, 88, 22, (250, 248, 240))
    p.box(62, 5, 73, 20, (174, 214, 240))
    p.box(75, 5, 86, 20, (174, 214, 240))
    p.box(0, 49, 100, 53, (246, 240, 232))
    p.box(0, 53, 100, 100, (176, 128, 92))
    for y in (64, 76, 88):
        p.line((156, 110, 76), 0.9, 0, y, 100, y)


BACKGROUNDS: dict[str, Callable[[Pen], None]] = {
    "farm": _farm,
    "street": _street,
    "kitchen": _kitchen,
    "park": _park,
    "beach": _beach,
    "zoo": _zoo,
    "room": _room,
}


@dataclass(frozen=True)
class _Style:
    """How a shape becomes a sprite: outline (px of 256), outline colour, paleness of the background, amount of
    light.
    """

    outline: int
    ink: RGB
    pale: float
    lit: float
    grain: float


_STYLES = {
    "photorealistic": _Style(1, (40, 36, 40), 0.05, 0.30, 7.0),
    "illustration": _Style(2, (20, 18, 24), 0.50, 0.0, 0.0),
    "cartoon": _Style(3, (255, 255, 255), 0.20, 0.0, 0.0),
}


@cache
def _sprite(thing: str, color: str, side: str, style: str) -> Image.Image:
    pen = Pen(PALETTE[color], _SPRITE * _SCALE)
    SHAPES[thing](pen)
    look = _STYLES[style]
    margin = look.outline * _SCALE
    room = Image.new("RGBA", [_SPRITE * _SCALE + 2 * margin] * 2, (*look.ink, 0))
    room.paste(pen.canvas, (margin, margin))
    alpha = room.getchannel("A")
    around = Image.new("RGBA", room.size, (*look.ink, 255))
    around.putalpha(_grown(alpha, margin))
    around.alpha_composite(_lit(room, look.lit))
    if side == "left":
        around = around.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return around.resize([CELL] * 2, Image.Resampling.LANCZOS)


def _grown(alpha: Image.Image, margin: int) -> Image.Image:
    return alpha.filter(ImageFilter.BoxBlur(margin)).point(lambda value: min(255, value * 12))


def _lit(sprite: Image.Image, amount: float) -> Image.Image:
    if not amount:
        return sprite
    tones = np.linspace(1 + 0.4 * amount, 1 - amount, sprite.height)[:, None, None]
    pixels = np.asarray(sprite, dtype=np.float64)
    pixels = np.concatenate([np.clip(pixels[..., :3] * tones, 0, 255), pixels[..., 3:]], axis=2)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


@cache
def _background(place: str, style: str) -> Image.Image:
    pen = Pen((255, 255, 255), SIZE * _SCALE)
    BACKGROUNDS[place](pen)
    look = _STYLES[style]
    picture = pen.canvas.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    picture = Image.blend(picture, Image.new("RGB", picture.size, (255, 252, 244)), look.pale)
    if look.grain:
        noise = np.random.default_rng(len(place)).normal(0, look.grain, (SIZE, SIZE, 1))
        pixels = np.clip(np.asarray(picture, dtype=np.float64) + noise, 0, 255)
        picture = Image.fromarray(pixels.astype(np.uint8), "RGB").filter(ImageFilter.GaussianBlur(0.7))
    return picture


def draw(scene: Scene) -> Image.Image:
    """The scene's image, RGB, SIZE x SIZE. The same scene gives the same pixels."""
    rng = random.Random(scene.seed)
    picture = _background(scene.place, scene.style).copy()
    for group in scene.groups:
        sprite = _sprite(group.thing, group.color, group.side, scene.style)
        for cell in group.cells:
            size = rng.randint(CELL - 8, CELL)
            stamp = sprite.resize((size, size), Image.Resampling.BILINEAR)
            row, column = divmod(cell, COLUMNS)
            slack = CELL - size
            corner = (column * CELL + rng.randint(0, slack), row * CELL + rng.randint(0, slack))
            picture.paste(stamp, corner, stamp)
    return picture


def model_picture(scene: Scene) -> Image.Image:
    """The image after the model's processor, RGB, MODEL_SIZE x MODEL_SIZE."""
    return draw(scene).resize((MODEL_SIZE, MODEL_SIZE), Image.Resampling.BICUBIC)


def png(picture: Image.Image) -> bytes:
    """The image as a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=6)
    return stream.getvalue()
