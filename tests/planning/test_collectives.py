"""What devices say to each other, read from programs whose answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.planning.collectives import read_collectives

KIB = 1024


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()).reshape(2, 4), ("outer", "inner"))


def collectives_of(function, mesh, rows=8):
    """Of a function of each device's [1, 256] float32 (1 KiB), which gets `rows` / 8 of them."""
    specs = PartitionSpec(("outer", "inner"))
    divided = jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )
    values = jax.ShapeDtypeStruct((rows, 256), jnp.float32, sharding=NamedSharding(mesh, specs))
    text = jax.jit(divided).lower(values).compile().as_text()
    return {one.kind: one[1:] for one in read_collectives(text, mesh.devices.size)}


@pytest.mark.parametrize(
    ("function", "kind", "put_in", "sent"),
    [
        # A ring of g sends 2 (g - 1) / g of what is added up: g=8, then g=4 and g=2.
        (lambda x: jax.lax.psum(x, ("outer", "inner")), "all-reduce", KIB, 1.75 * KIB),
        (lambda x: jax.lax.psum(x, "inner"), "all-reduce", KIB, 1.5 * KIB),
        (lambda x: jax.lax.psum(x, "outer"), "all-reduce", KIB, KIB),
        (lambda x: jax.lax.all_gather(x, "inner"), "all-gather", KIB, 3 * KIB),
        (
            lambda x: jax.lax.psum_scatter(x, "inner", scatter_dimension=1, tiled=True),
            "reduce-scatter", KIB, 0.75 * KIB,
        ),
        (
            lambda x: jax.lax.all_to_all(x.reshape(4, 64), "inner", 0, 0),
            "all-to-all", KIB, 0.75 * KIB,
        ),
        (
            lambda x: jax.lax.ppermute(x, "inner", [(0, 1), (1, 2), (2, 3), (3, 0)]),
            "collective-permute", KIB, KIB,
        ),
    ],
)  # fmt: skip
def test_each_kind_is_counted_with_its_bytes(mesh, function, kind, put_in, sent):
    assert collectives_of(function, mesh) == {kind: (1, put_in, sent)}


def test_loop_counts_as_often_as_it_goes_round(mesh):
    def five_times(x):
        add = functools.partial(jax.lax.psum, axis_name="inner")
        return jax.lax.scan(lambda sum, _: (jnp.sin(add(sum)), None), x, length=5)[0]

    assert collectives_of(five_times, mesh) == {"all-reduce": (5, 5 * KIB, 7.5 * KIB)}


def test_loop_in_a_loop_multiplies(mesh):
    def inner(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(jax.lax.psum(y, "inner")), x)

    def outer(x):
        # One more, of another axis, in the outer loop alone.
        step = lambda _, y: jax.lax.psum(inner(y), "outer")  # noqa: E731
        return jax.lax.fori_loop(2, 9, step, x)

    count, put_in, sent = collectives_of(outer, mesh)["all-reduce"]
    assert (count, put_in) == (7 * (3 + 1), 28 * KIB)
    assert sent == 7 * (3 * 1.5 + 1) * KIB


def test_nobody_to_talk_to_is_no_talk(mesh):
    alone = Mesh(mesh.devices.reshape(-1, 1), ("outer", "inner"))
    assert collectives_of(lambda x: jax.lax.psum(x, "inner"), alone) == {}


# As the TPU's compiler writes: no number of rounds, groups by the names of axes, tiles in the
# layouts, a reduce-scatter hidden in a fusion, a comment between operands.
TPU = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[64,8]) -> f32[16,8] {
  %input = f32[64,8]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[64,8]{1,0:T(8,128)} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %slice = f32[16,8]{1,0:T(8,128)} dynamic-slice(%all-reduce.9, %zero, %zero), dynamic_slice_sizes={16,8}
}

%body (state: (s32[], f32[64,8])) -> (s32[], f32[64,8]) {
  %state = (s32[]{:T(128)}, f32[64,8]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %x = f32[64,8]{1,0:T(8,128)S(1)} get-tuple-element(%state), index=1
  %all-reduce.2 = (f32[64,8]{1,0:T(8,128)S(1)}, bf16[32]{0:T(1024)(128)(2,1)S(1)}) all-reduce(%x, /*index=1*/%y), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, to_apply=%add
  %y = bf16[32]{0:T(1024)(128)(2,1)S(1)} get-tuple-element(%all-reduce.2), index=1
  %new = f32[64,8]{1,0:T(8,128)S(1)} get-tuple-element(%all-reduce.2), index=0
  ROOT %tuple = (s32[]{:T(128)}, f32[64,8]{1,0:T(8,128)S(1)}) tuple(%next, %new)
}

%condition (state.1: (s32[], f32[64,8])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[64,8]{1,0:T(8,128)S(1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (p: f32[64,8]) -> f32[16,8] {
  %p = f32[64,8]{1,0:T(8,128)} parameter(0)
  %start = s32[]{:T(128)} constant(START)
  %copy = s32[]{:T(128)} copy(%start)
  %begin = (s32[]{:T(128)}, f32[64,8]{1,0:T(8,128)S(1)}) tuple(%copy, %p)
  %while = (s32[]{:T(128)}, f32[64,8]{1,0:T(8,128)S(1)}) while(%begin), condition=%condition, body=%body
  %result = f32[64,8]{1,0:T(8,128)S(1)} get-tuple-element(%while), index=1
  ROOT %fusion = f32[16,8]{1,0:T(8,128)} fusion(%result), kind=kCustom, calls=%all-reduce-scatter.1
}
"""  # noqa: E501


@pytest.mark.parametrize(("start", "rounds"), [(0, 12), (3, 9)])
def test_text_of_the_compiler_for_tpus_is_read(start, rounds):
    reduced, scattered = read_collectives(TPU.replace("START", str(start)), 8)
    put_in = rounds * (64 * 8 * 4 + 32 * 2)
    assert reduced == ("all-reduce", rounds, put_in, 1.5 * put_in)
    assert scattered == ("reduce-scatter", 1, 2048, 0.75 * 2048)


def test_operation_in_several_fusions_is_one():
    """As the TPU's compiler hides an all-gather: begun, gone on with in a loop, ended."""
    gather = (
        'replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, frontend_attributes={chain_id="0"}'
    )
    parts = "".join(
        f"%{name} (p: f32[8,8]) -> f32[64,8] {{\n"
        "  %p = f32[8,8]{1,0:T(8,128)} parameter(0)\n"
        f"  ROOT %{name}.1 = f32[64,8]{{1,0:T(8,128)}} all-gather(%p), {gather}\n}}\n\n"
        for name in ("started", "gone_on", "done")
    )
    fused = "  %f.{0} = f32[64,8]{{1,0:T(8,128)}} fusion(%{1}), kind=kCustom, calls=%{0}\n"
    header, rest = TPU.replace("START", "0").split("\n\n", 1)
    loop = rest.replace("  %new =", fused.format("gone_on", "x") + "  %new =")
    text = loop.replace("  %start =", fused.format("started", "p") + "  %start =")
    text = text.replace("  %result =", fused.format("done", "p") + "  %result =")
    assert text.count("calls=%") == 4
    found = {one.kind: one for one in read_collectives(f"{header}\n\n{parts}{text}", 8)}
    assert found["all-gather"] == ("all-gather", 1, 8 * 8 * 4, 7 * 8 * 8 * 4)
    assert found["all-reduce"].count == 12


def test_loop_that_does_not_tell_its_rounds_is_an_error():
    text = TPU.replace("START", "0").replace("direction=LT", "direction=NE")
    with pytest.raises(ValueError, match="does not say how often it runs its loop while"):
        read_collectives(text, 8)
