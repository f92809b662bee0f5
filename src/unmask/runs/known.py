"""What a run knows of its model and images: learned when it begins, remembered when it resumes."""

from dataclasses import dataclass

from unmask.config.image import ImageSpec
from unmask.config.migrate import read_plan
from unmask.config.plan import DataFacts, EarlierPlan, Plan
from unmask.core.spec import ModelSpec
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError, DataError
from unmask.interop.description import Weights
from unmask.tasks.base import BaseTask, Data
from unmask.tasks.measure import measure


@dataclass(frozen=True)
class Known:
    """What a run knows of its model and images before it is planned."""

    model: ModelSpec
    image: ImageSpec
    facts: DataFacts
    licence_note: str
    notes: tuple[str, ...] = ()


def learn(task: BaseTask, data: Data, init: Weights | None) -> Known:
    """What is not known before a first start."""
    size = task.size(init)
    measured = measure(
        task.config.data,
        data.training,
        size=size,
        eval_crop=task.eval_crop(size),
        init=init,
        keep_channels=task.keeps_channels,
    )
    facts = DataFacts(
        training_images=len(data.training),
        held_out_images=len(data.held_out),
        fingerprint=data.fingerprint,
        decoded_bytes=measured.decoded_bytes,
        **_stamps(data),
    )
    licence = _licence(data, task.init, init.description.licence_note if init else "")
    return Known(task.spec(data, measured.image, init), measured.image, facts, licence, measured.notes)


def _licence(data: Data, init: str | None, of_init: str = "") -> str:
    """Licence note of a model: of its data and of the weights that it started from."""
    origin = of_init or (f"started from {init}, whose licence holds too" if init else "")
    return "; ".join(dict.fromkeys(filter(None, [data.training.licence_note, origin])))


def earlier_plan(directory: RunDirectory) -> EarlierPlan | None:
    """What plan.json says; None if it is not there. Raises CheckpointError if it cannot be used."""
    values = directory.read("plan.json")
    try:
        return None if values is None else read_plan(values)
    except ValueError as error:
        raise CheckpointError(
            f"{directory.path / 'plan.json'} cannot be used ({error}): restore it, or start a new run "
            f"with another --out"
        ) from error


def remember(earlier: EarlierPlan, data: Data, init: str | None) -> Known:
    """What an earlier part of the run learned; raises DataError if the images have changed since."""
    licence = earlier.licence_note
    if licence is None:  # plans of format 1 had none
        licence = _licence(data, init)
    _refuse_other_images(earlier.facts, data)
    return Known(earlier.model, earlier.image, earlier.facts, licence)


def finished_on(task: BaseTask, directory: RunDirectory) -> str:
    """Names the source that a finished run learned from, if another is asked for.

    Raises DataError if the images of that other source are not the run's, by number, name and size. The
    run's own source is not looked for: it may be gone.
    """
    plan = earlier_plan(directory)
    if directory.read("config.json") is None or plan is None:
        return ""
    source = directory.asked(type(task.config)).data.source
    if source == task.config.data.source:
        return ""
    facts, data = plan.facts, task.find()
    _refuse_other_images(facts, data)
    if facts.sizes not in ("", _stamps(data)["sizes"]):
        raise DataError(
            f"{directory.path} is finished, on images of the same names as in {' '.join(source)} but of "
            f"other sizes: choose another --out for these"
        )
    return f" on images of the same names in {' '.join(source)}"


def _refuse_other_images(facts: DataFacts, data: Data) -> None:
    """Raises DataError if the images are not those that a plan was made for."""
    if facts.fingerprint != data.fingerprint:
        raise DataError(
            f"the images have changed since the run began (then {facts.fingerprint}; now "
            f"{data.fingerprint}): restore them, or start a new run with another --out"
        )


def _stamps(data: Data) -> dict[str, str]:
    """Sizes and times of the files, as `DataFacts` names them."""
    sizes, times = zip(*(images.stamps() for images in data.files), strict=True)
    return {"sizes": " ".join(sizes), "times": " ".join(times)}


def changed(facts: DataFacts, data: Data) -> str:
    """Changes of the image files since the run was planned, in words; empty if there are none."""
    now = _stamps(data)
    if facts.sizes not in ("", now["sizes"]):
        return f"{data.files_called} have another size than when the run began"
    if facts.times not in ("", now["times"]):
        return f"{data.files_called} were written again since the run began"
    return ""


def rounding_of(earlier: EarlierPlan, plan: Plan) -> tuple[str, ...]:
    """What sums in another order than when the run last went on, in words."""
    pairs = {
        "images at once": (earlier.training.micro_batch, plan.training.micro_batch),
        "processes": (earlier.processes, plan.processes),
        "compilation": (earlier.training.compile, plan.training.compile),
    }
    return tuple(
        f"{name} {was} then, {now} now" for name, (was, now) in pairs.items() if was not in (None, now)
    )
