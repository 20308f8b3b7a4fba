"""The report says what its content says, escapes it, and needs nothing but its own file."""

from __future__ import annotations

import math
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from federation.history import History

with warnings.catch_warnings():
    # matplotlib 3.9 calls pyparsing by names that pyparsing has deprecated since.
    warnings.simplefilter("ignore", DeprecationWarning)
    import matplotlib

    from federation.model_card import model_card
    from federation.report_page import ReportContent, render_report, write_report
    from federation.report_pdf import render_pdf
    from federation.study_report import Words
    from leakages import two_sites
    from report_contents import REASON, make_content

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib.*")
WITHOUT_END = {"meta", "link", "br", "img", "base"}


class Page(HTMLParser):
    """The text of each element with an id, every attribute, and whether tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, str] = {"": ""}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in WITHOUT_END:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for key in {"", *(identifier for _, identifier in self.open if identifier)}:
            self.texts[key] = " ".join(f"{self.texts.get(key, '')} {data}".split())

    def __getitem__(self, identifier: str) -> str:
        return self.texts[identifier]


def rendered(tmp_path: Path, content: ReportContent) -> tuple[str, Page]:
    path = tmp_path / "out" / "report.html"
    write_report(path, content)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_file_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text, page = rendered(tmp_path, make_content())
    assert not {"script", "link", "iframe", "object", "img", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "srcset", "action", "data"}
        if name in {"href", "xlink:href"}:
            assert value.startswith("#"), tag
        if "://" in value:
            assert name.startswith("xmlns"), (tag, name, value)
        if "url(" in value:
            assert "url(#" in value
    assert not re.search(r"@import|url\((?!#)", text)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("meta", "content", policy) in page.attributes


def test_every_id_is_given_once(tmp_path: Path) -> None:
    _, page = rendered(tmp_path, make_content())
    identifiers = [value for _, name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    used = {v[1:] for _, name, v in page.attributes if name == "xlink:href"}
    used |= {i for _, _, v in page.attributes for i in re.findall(r"url\(#([^)]*)\)", v)}
    assert used <= set(identifiers)


def test_first_screen_has_facts_table_and_privacy(tmp_path: Path) -> None:
    content = make_content()
    _, page = rendered(tmp_path, content)
    whole = page[""]
    assert content.title in whole
    assert content.question in whole
    assert "3 sites at least 2,990 images 10 rounds 3 of 3 approved" in whole
    assert content.privacy in page["privacy"]
    assert "Model St Mary's North Clinic Seaside all" in page["measures"]
    # AUC, then accuracy, per column; the accuracy that is not in the content is a dash.
    assert "local: St Mary's 0.913 0.853 0.861 0.801 0.802 0.742 0.862 0.802" in page["measures"]
    assert "pooled 0.955 0.895 0.940 0.880 0.929 – 0.951 0.891" in page["measures"]


def test_the_best_auc_of_each_column_is_marked(tmp_path: Path) -> None:
    text, _ = rendered(tmp_path, make_content())
    best = re.findall(r'<td class="(?:all)? best"><b>([0-9.]+)</b>', text)
    # North Clinic's best is the federated model's, the others' the pooled one's.
    assert sorted(best) == ["0.929", "0.941", "0.951", "0.955"]


def test_a_dash_is_never_the_best(tmp_path: Path) -> None:
    content = make_content()
    content.measures["auc"]["pooled"] = {"all": 0.9512, "Seaside": math.nan}
    text, page = rendered(tmp_path, content)
    best = re.findall(r'<td class="(?:all)? best"><b>([^<]+)</b>', text)
    assert best == ["0.953", "0.941", "0.927", "0.951"]
    assert "pooled – 0.895 – 0.880 – – 0.951 0.891" in page["measures"]


def test_every_section_shows_its_content(tmp_path: Path) -> None:
    content = make_content()
    _, page = rendered(tmp_path, content)
    for refusal in content.refusals:
        assert " ".join(refusal.values()) in page["refusals"]
    for site in content.sites:
        for key in ("title", "decision", "policy", "request"):
            assert site[key] in page["approvals"]
    for name, value in content.provenance.items():
        assert f"{name} {value}" in page["provenance"]
    for log in content.audit:
        assert f"{log['title']} {log['lines']:,} lines, chain intact" in page["audit"]
        assert log["public_key"] in page["audit"]
    assert "sitegate audit verify LOG --public-key KEY" in page["audit"]
    assert content.notes[0] in page["notes"]


def test_a_missing_site_is_shown_with_its_reason(tmp_path: Path) -> None:
    _, page = rendered(tmp_path, make_content())
    assert page["missing"] == f"Missing Round 4, North Clinic {REASON}"
    content = make_content()
    content.history.loc[(5, "north-clinic"), ["state", "reason"]] = ["missing", REASON]
    _, later = rendered(tmp_path, content)
    assert later["missing"] == f"Missing Rounds 4, 5, North Clinic {REASON}"
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert any("North Clinic 9 of 10 rounds, 980 images each" in label for label in labels)
    assert "4 North Clinic missing – –" in page["figures"]


def test_a_suppressed_count_is_not_a_zero(tmp_path: Path) -> None:
    _, page = rendered(tmp_path, make_content())
    assert "Images suppressed Classes normal 1,248 pneumonia suppressed" in page["approvals"]
    assert page["approvals"].count("suppressed") == 2
    assert not re.search(r"(Images|pneumonia) 0\b", page["approvals"])


def test_figures_carry_titles_and_their_numbers_as_text(tmp_path: Path) -> None:
    _, page = rendered(tmp_path, make_content())
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert [label.split(".")[0] for label in labels] == [
        "AUC per round",
        "Training loss per round",
        "AUC by model",
        "Contributions",
    ]
    # all, round 10: 0.55 + (0.943 - 0.55) * (1 - exp(-4)) = 0.936; in the picture too
    assert "all from 0.680 to 0.936" in labels[0]
    assert "all 0.936" in page["figures"]
    assert "North Clinic: local: St Mary's 0.861" in labels[2]


def test_an_audit_log_that_does_not_verify_is_said_loudly(tmp_path: Path) -> None:
    content = make_content()
    content.audit[1]["verified"] = False
    _, page = rendered(tmp_path, content)
    assert "North Clinic 1,205 lines, NOT verified" in page["audit"]


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",  # an element
        '"><img src=x onerror=1>',  # out of an attribute
        "</svg><b>x",  # out of a figure
        "$\\frac{1}{2}$ & {{ 7*7 }}",  # mathematics and templates stay text
        '<g id="x">',  # what the figures' own ids look like
        "日本 病院",  # not in the font that matplotlib measures with
    ],
)
def test_hostile_titles_stay_text(tmp_path: Path, hostile: str) -> None:
    content = make_content(title=hostile, question=hostile, privacy=hostile)
    plain = Page(render_report(make_content()))
    content.sites[0]["title"] = hostile
    for table in content.measures.values():
        table[f"local: {hostile}"] = table.pop("local: St Mary's")
        for row in table.values():
            row[hostile] = row.pop("St Mary's")
    content.refusals[0]["sentence"] = hostile
    content.provenance[hostile] = hostile
    text, page = rendered(tmp_path, content)
    assert set(page.tags) == set(plain.tags)
    assert page.tags.count("b") == plain.tags.count("b")
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    for part in ("measures", "privacy", "refusals", "approvals", "provenance"):
        assert hostile in page[part], part
    # In the figures too, where a long title is cut.
    assert hostile[:19] in page["figures"]
    assert "<script" not in text


def test_same_content_gives_same_bytes_whatever_matplotlib_is_set_to(tmp_path: Path) -> None:
    write_report(tmp_path / "one.html", make_content())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        write_report(tmp_path / "two.html", make_content())
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_failing_report_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_report(path, make_content())
    old = path.read_bytes()
    broken = make_content()
    del broken.refusals[0]["rule"]
    with pytest.raises(Exception, match="rule"):
        write_report(path, broken)

    def fail(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("federation.whole_file.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, make_content(title="new"))
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_study_without_rounds_or_measures_has_a_report_too(tmp_path: Path) -> None:
    content = make_content(
        history=History().frame(), auc_by_round=pd.DataFrame(), measures={}, refusals=[]
    )
    for site in content.sites:
        site["state"] = "pending"
    _, page = rendered(tmp_path, content)
    assert "No model has been measured yet." in page["measures"]
    assert "No round has been run yet." in page["figures"]
    assert "No refusal was recorded." in page["refusals"]
    assert "0 of 3 approved" in page[""]


def test_without_states_a_contribution_shows_the_approval(tmp_path: Path) -> None:
    content = make_content()
    for site in content.sites:
        del site["state"]
    _, page = rendered(tmp_path, content)
    assert "3 of 3 approved" in page[""]


def test_a_leakage_test_is_in_page_document_and_model_card() -> None:
    content = make_content(release=two_sites())
    page = Page(render_report(content))
    assert "Not released: the limits of North Clinic do not hold." in page["leakage"]
    assert "at most 10% is allowed" in page["leakage"]
    assert "What attacks find of the training images" in page["leakage"]
    card = model_card(content, Words(), "train_classifier", {})
    assert "## Leakage test" in card
    assert "| North Clinic | limits do not hold |" in card
    assert len(render_pdf(content)) > len(render_pdf(make_content()))
    assert "leakage" not in Page(render_report(make_content())).texts
