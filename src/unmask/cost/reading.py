"""How long a run reads images, beside its arithmetic: what `check` measures of both, in one place."""

from dataclasses import dataclass

from unmask.config.pace import what_helps_arithmetic, what_helps_reading
from unmask.cost.predict import Prediction
from unmask.units import counted


@dataclass(frozen=True, kw_only=True)
class ReadingTime:
    """Reading time of a predicted run, all of whose loader processes read at the measured speed."""

    prediction: Prediction
    kept_ms: float
    """A core's milliseconds for a sample whose image is in memory, decoded; `prediction` knows the
    others."""

    @property
    def samples(self) -> int:
        """In the whole run."""
        return self.prediction.plan.training.steps * self.prediction.plan.training.batch

    @property
    def later_ms(self) -> float:
        """For a sample from the second epoch on."""
        keeps = self.prediction.plan.loading.keep_decoded
        return self.kept_ms if keeps else self.prediction.sample_ms

    @property
    def seconds(self) -> float:
        """Wall-clock time, on the plan's loader processes."""
        p, plan = self.prediction, self.prediction.plan
        epoch = plan.facts.training_images * plan.loading.repeats
        first = min(self.samples, epoch)
        all_ms = first * p.sample_ms + (self.samples - first) * self.later_ms
        return all_ms / 1000 / max(1, plan.loading.workers)

    @property
    def verdict(self) -> str:
        """What is slower from the second epoch on, and what helps."""
        p, workers = self.prediction, max(1, self.prediction.plan.loading.workers)
        reading, arithmetic = self.later_ms / workers, 1000 * p.seconds / self.samples
        if reading > arithmetic:
            figures = (
                f"{reading:.2g} ms a sample in {counted(workers, 'process')} against {arithmetic:.2g}"
            )
            return f"data loading, {figures}; what helps: {what_helps_reading(p.plan)}"
        figures = f"{arithmetic:.2g} ms a sample against {reading:.2g} of data loading"
        return f"computation, {figures}; what helps: {what_helps_arithmetic(p.plan)}"
