import pytest

from inkdigits.cli.options import needs_training_extra


def test_module_that_is_no_training_package_is_not_blamed_on_the_extra():
    def command():
        raise ModuleNotFoundError(name="somebody_elses")

    with pytest.raises(ModuleNotFoundError) as caught:
        needs_training_extra(command)()
    assert caught.type is ModuleNotFoundError
