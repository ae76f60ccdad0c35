"""The page in Airflow's own light, in each generation; more of its looks are in test_looks.py."""

import pytest
from playwright.sync_api import expect

from tests.page.browsing import by_navigation, keep_picture


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_in_airflow_it_looks_like_airflow(site, visit, theme):
    """It takes Airflow's light, now and when that is changed; Airflow 2 inverts what is light."""
    visitor = visit("admin", color_scheme=theme, viewport={"width": 1280, "height": 900})
    frame = by_navigation(site, visitor)
    keep_picture(visitor.page, f"in-airflow-{theme}")
    here = frame.locator("html")
    if site.two:
        expect(here).to_have_attribute("data-theme", "light")
        return
    expect(here).to_have_attribute("data-theme", theme)
    other = {"light": "dark", "dark": "light"}[theme]
    visitor.page.evaluate(f"document.documentElement.classList.replace('{theme}', '{other}')")
    expect(here).to_have_attribute("data-theme", other)
