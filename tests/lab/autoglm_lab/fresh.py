"""A fresh machine from this checkout's image, which is built first if it is not there."""

from .console import note
from .image.warm import accelerator, ensure_image
from .machine.vm import Machine, Settings, free_port


def start(name: str, *, is_volatile: bool = False, is_cold: bool = False, is_bound: bool = False) -> Machine:
    """A fresh machine from the image, up and answering."""
    image = ensure_image()
    machine = Machine(name)
    base = image / ("base.raw" if is_cold else "warm.raw")
    disk = "volatile" if is_volatile else "overlay"
    machine.create(Settings(str(image), disk, str(base), accelerator(), free_port(), is_bound))
    seconds = machine.boot(is_warm=not is_cold)
    if is_cold:
        machine.wait_for_system()
    note(f"{name} is up after {seconds:.1f} s ({'booted' if is_cold else 'resumed'}, {disk} disk, {accelerator()})")
    return machine
