"""What is known of the images before a file is opened."""

from dataclasses import dataclass

from unmask.config.image import PixelFormat


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files are to be read that do not say everything themselves."""

    channels: int | None = None
    """Says which axis of an array holds them."""
    axes: str | None = None
    """The order of an array's axes, as 'CYX'; see `arrays.order_of`."""
    rescale: bool | None = None
    """How DICOM is read: values in units (True), as stored (False), or as each file says."""
    max_pixels: int = PixelFormat.max_pixels
    """Those of the largest images, which say how large files may be."""

    @classmethod
    def of(cls, wanted: PixelFormat) -> "Reading":
        """As images of this format are read."""
        return cls(
            channels=wanted.channels,
            axes=wanted.axes,
            rescale=wanted.rescale,
            max_pixels=wanted.max_pixels,
        )


AS_IT_SAYS = Reading()
"""What a file itself says, and nothing else."""
