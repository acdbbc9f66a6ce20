from pytest_membudget.runtime.prediction.input_size import FOLDER, InputSize, input_size


def test_the_size_of_an_item_is_that_of_all_the_paths_in_it(tmp_path):
    for name, size in (("a.csv", 10), ("b.gz", 200)):
        (tmp_path / name).write_bytes(bytes(size))
    a, b = tmp_path / "a.csv", str(tmp_path / "b.gz")
    items = (a, b, tmp_path, (a, "option", 3), [b, [a]], {"one": a})
    assert [input_size(item).bytes for item in items] == [10, 200, 210, 10, 210, 10]
    assert input_size([b, a]) == InputSize(210, ".gz")
    assert input_size(tmp_path).kind == FOLDER
    assert [input_size(item) for item in (3, "no such file", (), {}, None)] == [None] * 5


def test_a_folder_with_a_loop_of_links_is_counted_once(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert input_size(tmp_path).bytes < 10_000
