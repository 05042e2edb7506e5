"""A cache folder of the tests' own, and the real data where they lie beside the repository."""

import pyarrow.parquet as pq
import pytest
from places import SHARED


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHRINKBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def cifar10_folder():
    return _real("cifar10")


@pytest.fixture(scope="session")
def cifar10_part(cifar10_folder, tmp_path_factory):
    """The first 4,000 real training images and the first 2,000 real test images."""
    folder = tmp_path_factory.mktemp("cifar10")
    for name, rows in (("train.parquet", 4_000), ("test.parquet", 2_000)):
        real = pq.ParquetFile(cifar10_folder / name)
        pq.write_table(real.read_row_group(0).slice(0, rows), folder / name)
    return folder


@pytest.fixture(scope="session")
def imagenet_folder():
    return _real("imagenet-sample")


def _real(name):
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the real data {folder} are not on this machine")
    return folder
