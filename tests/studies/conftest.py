"""Programs of these tests, which run once, are compiled without most optimisations."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def compiled_for_one_use(quickly_compiled):
    pass
