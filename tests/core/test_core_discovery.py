import logging
from pathlib import Path

import pytest

from gymnast_core.plugins import discovery

GROUP = "gymnast.policies"


def test_a_source_names_its_distribution_and_version(site_packages):
    site_packages.add("arms-plugin", f"[{GROUP}]\narm = arms_plugin.policy:Arm\n")
    (source,) = discovery.sources(GROUP)["arm"]
    assert (source.distribution, source.version) == ("arms-plugin", "1.2")
    assert (source.module, str(source)) == ("arms_plugin.policy", "arms-plugin 1.2 (arms_plugin.policy:Arm)")


def test_same_name_and_target_is_one_plugin_and_two_targets_are_two(site_packages):
    site_packages.add("one", f"[{GROUP}]\nsame = a:A\nclash = a:A\n")
    site_packages.add("two", f"[{GROUP}]\nsame = a:A\nclash = b:B\n")
    found = discovery.sources(GROUP)
    assert len(found["same"]) == 1
    assert {source.distribution for source in found["clash"]} == {"one", "two"}


@pytest.mark.parametrize(
    "garbage",
    [
        b"no section header\n",
        b"[a]\nx = 1\nx = 2\n",
        b"\xff\xfe[console_scripts]\n",
        b"[a]\n[a]\n",
        b"[g]\n??\n",
    ],
)
def test_a_malformed_file_of_another_package_hides_nothing(site_packages, caplog, garbage):
    site_packages.add("aaa-broken", garbage)
    site_packages.add("fine", f"[{GROUP}]\nfine = fine:Fine\n")
    site_packages.add("zzz-broken", garbage)
    with caplog.at_level(logging.WARNING):
        (source,) = discovery.sources(GROUP)["fine"]
    assert (source.distribution, source.version) == ("fine", "1.2")
    assert "malformed" in caplog.text


def test_percent_signs_and_odd_path_items_are_harmless(site_packages, monkeypatch, tmp_path):
    import sys

    site_packages.add("percent", f"[{GROUP}]\npercent = per%(cent:X\n")
    monkeypatch.setattr(sys, "path", [tmp_path / "pathlib", Path("x"), *sys.path, "", "missing.zip"])
    assert discovery.sources(GROUP)["percent"][0].target == "per%(cent:X"


def test_an_earlier_folder_shadows_the_same_distribution(site_packages, tmp_path, monkeypatch):
    site_packages.add("dup_name", f"[{GROUP}]\ndup = old:Old\n")
    newer = type(site_packages)(tmp_path / "first")
    newer.add("dup-name", f"[{GROUP}]\ndup = new:New\n")
    monkeypatch.syspath_prepend(str(newer.path))
    assert [source.target for source in discovery.sources(GROUP)["dup"]] == ["new:New"]


def test_locate_finds_a_module_without_importing_its_package(site_packages):
    site_packages.add("lazy", "", {"lazy_pkg/__init__.py": "raise RuntimeError", "lazy_pkg/sub/mod.py": ""})
    assert discovery.locate("lazy_pkg.sub.mod").origin.endswith("mod.py")
    assert discovery.locate("lazy_pkg.nothing") is None
    assert discovery.locate("no_such_package.at_all") is None


def test_an_egg_info_left_by_a_build_does_not_shadow_the_installed_distribution(site_packages, tmp_path, monkeypatch):
    site_packages.add("built", f"[{GROUP}]\nbuilt = new:New\nadded = new:Added\n")
    leftover = tmp_path / "checkout" / "built.egg-info"
    leftover.mkdir(parents=True)
    (leftover / "entry_points.txt").write_text(f"[{GROUP}]\nbuilt = old:Old\n")
    monkeypatch.syspath_prepend(str(leftover.parent))
    assert [source.target for source in discovery.sources(GROUP)["built"]] == ["new:New"]
    assert "added" in discovery.sources(GROUP)


def test_an_egg_info_alone_counts(tmp_path, monkeypatch):
    info = tmp_path / "developed.egg-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[{GROUP}]\ndeveloped = here:Here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert discovery.sources(GROUP)["developed"][0].version is None
