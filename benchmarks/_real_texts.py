"""Real texts and their vectors: the 117,000 definitions of WordNet, which Debian has as a package.

They are fetched with apt-get and unpacked with dpkg-deb, without being installed. Their vectors are those of
`velaria.embedding`, of every third, made once: some minutes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from velaria import embedding

_PACKAGE = "wordnet-base"
_PARTS = ("noun", "verb", "adj", "adv")
_AT_ONCE = 1024
_EVERY = 3


def definitions(cache: Path) -> Path:
    """A file with a definition on each line, in the order of WordNet; each once."""
    made = cache / "definitions.txt"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            fetch = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", _PACKAGE]
            subprocess.run(fetch, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            (package,) = Path(folder).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
            (data,) = Path(folder).glob("usr/share/wordnet/data.noun")
            found = [
                line.split(" | ", 1)[1].strip()
                for part in _PARTS
                for line in data.with_name(f"data.{part}").read_text("utf-8").splitlines()
                if " | " in line
            ]
        made.write_text("\n".join(dict.fromkeys(found)), "utf-8")
    return made


def vectors(cache: Path) -> Path:
    """Vectors of some of them, (n, 512) float32 in a file of NumPy."""
    made = cache / "definitions.npy"
    if not made.exists():
        provider = embedding.provider("use-multilingual")
        texts = definitions(cache).read_text("utf-8").splitlines()[::_EVERY]
        parts = []
        for first in range(0, len(texts), _AT_ONCE):
            column = embedding.column(provider, pa.array(texts[first : first + _AT_ONCE]))
            parts.append(np.asarray(column.flatten(), np.float32).reshape(len(column), -1))
            print(f"\rvectors of {first + len(column):,} of {len(texts):,} texts", end="", file=sys.stderr)
        print(file=sys.stderr)
        np.save(made, np.concatenate(parts))
    return made
