import ipywidgets
import pytest


@pytest.fixture(autouse=True)
def no_widget_stays():
    """Each test has the widgets that it makes, and leaves none to the next."""
    yield
    ipywidgets.Widget.close_all()
