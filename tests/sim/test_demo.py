"""The shipped demo: its network and images are there and agree with what was measured when they were made."""

from gatewise.sim.demo import load_demo


def test_the_demo_runs_its_held_out_images_without_an_overflow():
    demo = load_demo()
    result = demo.network.run(demo.images, demo.engine)
    assert result.images == 360
    assert result.top(1) > 0.9
    assert abs(result.top(1) - demo.float_top1) < 0.05
    assert [result.overflow(kind) for kind in ("product", "align", "acc", "post")] == [0, 0, 0, 0]


def test_the_comparison_states_both_accuracies_in_points():
    demo = load_demo()
    result = demo.network.run(demo.images, demo.engine)
    lost = 100 * (demo.float_top1 - result.top(1))
    first, second = demo.comparison(result)
    assert f"{100 * demo.float_top1:.2f} % top-1" in first
    assert f"loses {lost:.2f} points" in first
    assert f"{demo.facts.file_bytes:,} bytes" in second
