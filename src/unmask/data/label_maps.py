"""Images with label maps: found, and divided into training and validation."""

from dataclasses import replace

from unmask.config.annotations import MapOptions
from unmask.data.annotated import AnnotatedParts, AnnotatedSplit, divided
from unmask.data.maps import LabelMaps
from unmask.data.sources import coco_maps, labelme_maps, map_files
from unmask.data.sources.map_folders import refuse_jpeg_maps
from unmask.data.sources.source import MapSource
from unmask.errors import DataError

SOURCES: tuple[MapSource, ...] = (map_files.SOURCE, coco_maps.SOURCE, labelme_maps.SOURCE)


def find_label_maps(
    sources: tuple[str, ...],
    *,
    val: tuple[str, ...] = (),
    val_share: float | None = None,
    options: MapOptions | None = None,
) -> AnnotatedSplit[LabelMaps]:
    """The images and label maps of a folder, or of masks in COCO's or labelme's format.

    Without a list of classes each map is read once to see which values there are. `divided` says which
    images are for validation. Raises DataError, which says how to correct it, if a map is missing.
    """
    options = options or MapOptions()
    found = find_map_parts(sources, options)
    given = find_map_parts(val, options) if val else None
    split = divided(sources[0], found, given, val_share)
    return split._replace(validation=replace(split.validation, palette=split.training.palette))


def find_map_parts(sources: tuple[str, ...], options: MapOptions) -> AnnotatedParts[LabelMaps]:
    """What one source holds, divided as it divides itself; raises DataError if it holds no maps."""
    if len(sources) != 1:
        raise DataError(
            f"segmentation takes one folder and got {', '.join(sources) or 'none'}: give one with the "
            f"folders images and annotations"
        )
    for source in SOURCES:
        if source.matches(sources[0]):
            return source.read(sources[0], options)
    refuse_jpeg_maps(sources[0])
    raise DataError(
        f"{sources[0]} has no label maps: give a folder with the folders images and annotations (or "
        f"labels, or masks), or with COCO's or labelme's JSON files beside the images"
    )
