from markdown_it import MarkdownIt

from pytest_membudget.report.markdown import render_markdown


def tokens_of(text):
    found = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    return [child for token in found for child in (token, *(token.children or ()))]


def test_tables_have_the_scale_rows(report):
    lines = render_markdown(report).splitlines()
    assert (
        "| scale | rows | batches | workers | in flight | peak | of limit | budget | rows/s | status |"
        in lines
    )
    assert "| MEDIUM | 500,000 | 10 | 8 | 10 | 26.1 GiB | 87.5% | 27.9 GiB | 1,389 | HIGH |" in lines


def test_every_row_has_as_many_cells_as_its_heading(report, hostile_report):
    for shown in (report, hostile_report):
        widths, current = set(), 0
        for token in tokens_of(render_markdown(shown)):
            if token.type == "tr_open":
                current = 0
            elif token.type in {"td_open", "th_open"}:
                current += 1
            elif token.type == "tr_close":
                widths.add(current)
        assert widths <= {10, 9, 8, 2, 7, 6}


def test_names_from_outside_are_never_markup(hostile_report):
    kinds = {token.type for token in tokens_of(render_markdown(hostile_report))}
    assert not kinds & {"html_block", "html_inline", "strong_open", "em_open", "link_open", "image"}


def test_a_code_span_shows_the_name_as_it_is(hostile_report):
    spans = {
        token.content for token in tokens_of(render_markdown(hostile_report)) if token.type == "code_inline"
    }
    assert "test_x.py::test[| a `b` **c** <b> @user #1 &amp;]" in spans
