"""Check the one wheel of a directory, as users will get it: ``python scripts/check_wheel.py dist``."""

import sys
import zipfile
from pathlib import Path, PurePosixPath

LARGEST = 4 << 20
NEEDED = ["penstock/py.typed", "penstock/_core.pyi", "penstock/_core.abi3.so", "penstock/__init__.py"]
LICENSES = ["LICENSE-APACHE", "LICENSE-MIT"]
ALLOWED = {".py", ".pyi", ".typed", ".so"}


def problems(wheel: Path, version: str) -> list[str]:
    """What is wrong with it."""
    found = []
    size = wheel.stat().st_size
    if size > LARGEST:
        found.append(f"it has {size:,} bytes, more than {LARGEST:,}")
    if not wheel.name.startswith(f"penstock-{version}-cp310-abi3-"):
        found.append(f"it is not the abi3 wheel of {version} for Python 3.10 and later")
    names = zipfile.ZipFile(wheel).namelist()
    found += [f"{name} is missing" for name in NEEDED if name not in names]
    for license_file in LICENSES:
        if not any(name.endswith(f".dist-info/licenses/{license_file}") for name in names):
            found.append(f"{license_file} is missing")
    for path in map(PurePosixPath, names):
        if path.parts[0] == f"penstock-{version}.dist-info":
            continue
        if path.parts[0] != "penstock" or path.suffix not in ALLOWED or path.name.startswith("test_"):
            found.append(f"{path} does not belong there")
    return found


def main(directory: str) -> int:
    """Check it; give the exit status."""
    (wheel,) = Path(directory).glob("*.whl")
    manifest = Path("Cargo.toml").read_text(encoding="utf-8")
    version = manifest.partition('\nversion = "')[2].partition('"')[0]
    found = problems(wheel, version)
    for problem in found:
        print(f"{wheel.name}: {problem}", file=sys.stderr)
    if not found:
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.2f} MB")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
