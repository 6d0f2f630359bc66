"""The line that shows how far an evaluation is."""

from trl_prune.reporting.progress import ItemBar


def test_stored_items_count_but_not_for_the_time_left_and_alone_draw_nothing(capfd):
    with ItemBar("sft", 1204) as bar:
        bar("facts", 600, True)
    assert capfd.readouterr().err == ""
    with ItemBar("sft", 1204) as bar:
        bar("facts", 600, True)
        bar("arithmetic", 4, False)
        bar("grammar", 100, True)
        assert (bar.bar.n, bar.bar.initial) == (704, 700)
    assert "evaluate sft: 704/1,204 items, arithmetic |" in capfd.readouterr().err
