"""The forward of preference training: log-probs of R responses to one prompt, the prefix computed once."""

from napo_bench.trainers.forward.batch import PreferenceBatch
from napo_bench.trainers.forward.logps import ResponseLogps, obstacle_to_sharing, prepare, response_logps

__all__ = ["PreferenceBatch", "ResponseLogps", "obstacle_to_sharing", "prepare", "response_logps"]
