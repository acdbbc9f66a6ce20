"""Documents read and written: JSON, CSV, XML, HTML, spreadsheets, templates, pictures."""

import csv
import io
import itertools
import json
import time
import xml.etree.ElementTree
import zipfile

from growth_corpus.case import clean, leaking, records, slow


@clean
def json_of_varying_size_slowly(random):
    def call():
        json.loads(json.dumps(records(random, 1000)))
        time.sleep(0.1)

    return call


@clean
def json_of_varying_size(random):
    def call():
        json.loads(json.dumps(records(random, 1000)))
        time.sleep(0.02)

    return call


@clean
def csv_of_varying_size(random):
    def call():
        stream = io.StringIO()
        csv.writer(stream).writerows(
            [number, "y" * random.randrange(80)] for number in range(random.randrange(3000))
        )
        list(csv.reader(io.StringIO(stream.getvalue())))

    return call


@clean
def elementtree_of_varying_size(random):
    def call():
        text = "<a>" + "".join(f"<b n='{n}'>{n}</b>" for n in range(random.randrange(2000))) + "</a>"
        xml.etree.ElementTree.fromstring(text)

    return call


@clean
def zip_in_memory(random):
    def call():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(5):
                archive.writestr(f"{number}.txt", random.randbytes(random.randrange(100_000)))

    return call


@clean
def openpyxl_workbook(random):
    import openpyxl

    def call():
        book = openpyxl.Workbook()
        for row in range(random.randrange(1, 60)):
            book.active.append([row, "z" * random.randrange(20), row / 3])
        stream = io.BytesIO()
        book.save(stream)
        openpyxl.load_workbook(stream)

    return call


@clean
def pandas_read_csv(random):
    import pandas

    def call():
        text = "a,b\n" + "".join(f"{n},{'q' * (n % 40)}\n" for n in range(random.randrange(1, 5000)))
        pandas.read_csv(io.StringIO(text))

    return call


@clean
def lxml_documents(random):
    from lxml import etree

    def call():
        text = "<a>" + "".join(f"<b n='{n}'>{n}</b>" for n in range(random.randrange(5000))) + "</a>"
        etree.fromstring(text).xpath("count(//b)")
        time.sleep(0.005)

    return call


@clean
def jinja_templates(random):
    import jinja2

    environment = jinja2.Environment()

    def call():
        environment.from_string("{% for i in items %}{{ i }}{% endfor %}").render(
            items=range(random.randrange(5000))
        )

    return call


@clean
def beautiful_soup(random):
    import bs4

    def call():
        bs4.BeautifulSoup("<p>" + "<b>x</b>" * random.randrange(300), "html.parser").find_all("b")

    return call


@clean
def pillow_thumbnails(random):
    from PIL import Image

    def call():
        image = Image.new("RGB", (random.randrange(10, 600), random.randrange(10, 600)), (9, 9, 9))
        image.thumbnail((64, 64))
        image.save(io.BytesIO(), "PNG")

    return call


@clean
def yaml_documents(random):
    import yaml

    def call():
        yaml.safe_load(yaml.safe_dump(records(random, 20)))

    return call


@clean
def jsonschema_validation(random):
    import jsonschema

    schema = {"type": "array", "items": {"$ref": "#/$defs/row"}, "$defs": {"row": {"required": ["id"]}}}
    return lambda: jsonschema.Draft202012Validator(schema).validate(records(random, 50))


@clean
def markdown_pages(random):
    import markdown_it

    def call():
        markdown_it.MarkdownIt().render("# a\n\n* b `c` [d](e)\n" * random.randrange(1, 100))

    return call


@clean
def patterns_up_to_the_size_of_their_cache(random):
    import re

    numbers = itertools.count()

    def call():
        re.fullmatch(f"a{next(numbers) % 300}b*", "a7bb")
        time.sleep(0.002)

    return call


@leaking(500)
def lxml_trees_kept(random):
    from lxml import etree

    kept = []

    def call():
        kept.append(etree.fromstring("<a>" + "<b/>" * 20 + "</a>"))
        time.sleep(0.01)

    return call


@leaking(30_000)
def pillow_images_kept(random):
    from PIL import Image

    kept = []
    return slow(0.005)(lambda: kept.append(Image.new("RGB", (100, 100), (1, 2, 3))))


@clean
def spreadsheet_read_again(random):
    import openpyxl

    workbook = openpyxl.Workbook()
    for _ in range(60):
        workbook.active.append([random.random(), "text"])
    file = io.BytesIO()
    workbook.save(file)

    def call():
        file.seek(0)
        read = openpyxl.load_workbook(file, read_only=True)
        sum(row[0] for row in read.active.iter_rows(values_only=True))
        read.close()

    return call


@clean
def pages_queried_by_xpath(random):
    from lxml import html

    def call():
        page = "".join(
            f"<tr><td class='c{number % 7}'>{number}</td></tr>" for number in range(random.randrange(300))
        )
        html.fromstring(f"<table>{page}<tr><td>0</td></tr></table>").xpath("//td[@class='c3']/text()")
        time.sleep(0.002)

    return call


@clean
def schemas_with_references(random):
    import jsonschema

    schema = {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    }
    validator = jsonschema.Draft202012Validator(schema)

    def call():
        node = {}
        for _ in range(random.randrange(1, 40)):
            node = {"next": node}
        validator.validate(node)

    return call


@leaking(500)
def elements_found_and_kept(random):
    from lxml import etree

    kept = []

    def call():
        root = etree.fromstring("<a>" + "<b>text</b>" * random.randrange(5, 40) + "</a>")
        kept.append(root[0])  # which keeps the whole tree
        time.sleep(0.005)

    return call


@leaking(500)
def validators_by_the_text_of_their_schema(random):
    import jsonschema

    known = {}

    def call():
        schema = {"type": "object", "title": str(random.random()), "properties": {"a": {"type": "integer"}}}
        known[json.dumps(schema)] = jsonschema.Draft202012Validator(schema)
        time.sleep(0.01)

    return call
