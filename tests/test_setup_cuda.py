"""Set-up's decision about CUDA, against toolkits, drivers and torches of every kind.

The toolkits are shell scripts that answer as nvcc does, so that every machine of the table can be
had here; `scripts.try_setup` builds on real ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import cuda, toolkit, toolkit_wheels
from scripts.steps import SetupError
from scripts.toolkit import Toolkit
from scripts.torch_facts import Torch


def torch(built_for: str) -> Torch:
    suffix = f"+cu{built_for.replace('.', '')}" if built_for else "+cpu"
    return Torch("2.13.0", f"2.13.0{suffix}", built_for, Path("torch"))


def make_toolkit(home: Path, release: str, whole: bool = True) -> Path:
    """A folder whose nvcc says `release` and links programs only if it is `whole`."""
    (home / "bin").mkdir(parents=True)
    link = "exit 0" if whole else "echo '/usr/bin/ld: cannot find -lcudart_static' >&2; exit 1"
    (home / "bin" / "nvcc").write_text(
        f"""#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release {release}, V{release}.88" ;;
--dryrun) echo '#$ TOP={home}/bin/..' ;;
*) {link} ;;
esac
"""
    )
    (home / "bin" / "nvcc").chmod(0o755)
    return home


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No toolkit, no driver, no wishes."""
    for name in (*toolkit.HOMES, "HVDFILTER_CUDA", "HOROVOD_GPU_OPERATIONS"):
        monkeypatch.delenv(name, raising=False)
    # nvcc stand-ins are shell scripts: sh must be found, an nvcc of this machine must not.
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(toolkit, "USUAL", tmp_path / "usual")
    monkeypatch.setattr(cuda, "driver", lambda: 0)


# torch's CUDA, the machine's toolkit (release, whole), GPUs, environment ->
# release, where from, kernels, Horovod sees CUDA, operations. The rows are the sentences.
TABLE = [
    ("13.0", None, 0, {}, ("", "", False, False, "")),
    ("13.0", ("13.0", True), 0, {}, ("13.0", "machine", True, True, "")),
    ("13.0", ("13.2", True), 0, {}, ("13.2", "machine", True, True, "")),  # minor releases mix
    ("13.0", ("13.0", False), 0, {}, ("", "", False, False, "")),
    ("13.0", ("12.8", True), 0, {}, ("", "", False, False, "")),
    # A cloud machine: a driver, no toolkit or half of one.
    ("13.0", None, 2, {}, ("13.0", "registry", True, True, "NCCL")),
    ("13.0", ("13.0", False), 2, {}, ("13.0", "registry", True, True, "NCCL")),
    ("13.0", ("12.8", True), 2, {}, ("13.0", "registry", True, True, "NCCL")),
    ("13.0", ("13.0", True), 2, {}, ("13.0", "machine", True, True, "NCCL")),
    # A login node: no driver, but the user says what is wanted.
    ("13.0", None, 0, {"HOROVOD_GPU_OPERATIONS": "NCCL"}, ("13.0", "registry", True, True, "")),
    ("13.0", None, 0, {"HVDFILTER_CUDA": "1"}, ("13.0", "registry", True, True, "")),
    ("13.0", ("13.0", True), 2, {"HVDFILTER_CUDA": "0"}, ("", "", False, False, "")),
    # torch for the CPU: there is nothing for Horovod to be built with.
    ("", ("13.0", True), 2, {}, ("", "", False, False, "")),
    ("", ("13.0", True), 0, {"HVDFILTER_CUDA": "1"}, ("13.0", "machine", True, False, "")),
    ("", None, 0, {"HVDFILTER_CUDA": "1"}, ("13.0", "registry", True, False, "")),
]


@pytest.mark.parametrize(("built_for", "kit", "gpus", "env", "expected"), TABLE)
def test_decision(
    built_for: str,
    kit: tuple[str, bool] | None,
    gpus: int,
    env: dict[str, str],
    expected: tuple[str, str, bool, bool, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if kit is not None:
        make_toolkit(tmp_path / "usual", *kit)
    monkeypatch.setattr(cuda, "driver", lambda: gpus)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    made = cuda.decide(torch(built_for))
    source = "" if not made.release else "machine" if made.toolkit else "registry"
    assert (made.release, source, made.kernels, made.horovod, made.operations) == expected
    assert "\n" not in made.line() and made.line().startswith("CUDA")
    if kit is not None and source != "machine" and built_for and "HVDFILTER_CUDA" not in env:
        assert f"passed by {tmp_path / 'usual'}" in made.line()


def test_only_a_build_that_lacks_a_gpu_waits_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def waits(built_for: str) -> bool:
        return cuda.would_change(torch(built_for), cuda.decide(torch(built_for)))

    assert waits("13.0") and not waits("")
    monkeypatch.setenv("HVDFILTER_CUDA", "0")
    assert not waits("13.0")
    monkeypatch.delenv("HVDFILTER_CUDA")
    make_toolkit(tmp_path / "usual", "13.0")
    assert not waits("13.0")


def test_a_toolkit_that_the_user_names_is_used_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_toolkit(tmp_path / "usual", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "mine", "13.1")))
    made = cuda.decide(torch("13.0"))
    assert made.toolkit == Toolkit(tmp_path / "mine", "13.1")

    for home, fault in (
        (make_toolkit(tmp_path / "old", "12.4"), "it is CUDA 12.4, torch needs 13.0"),
        (make_toolkit(tmp_path / "half", "13.0", whole=False), "cannot find -lcudart_static"),
        (tmp_path / "none", "it has no bin/nvcc that runs"),
    ):
        monkeypatch.setenv("CUDA_HOME", str(home))
        with pytest.raises(SetupError) as refused:
            cuda.decide(torch("13.0"))
        said = str(refused.value)
        assert said.startswith(f"CUDA_HOME={home} cannot be used (")
        assert fault in said and "unset it" in said


def test_wishes_that_cannot_be_met_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    with pytest.raises(SetupError, match="needs a torch built for CUDA"):
        cuda.decide(torch(""))
    monkeypatch.setenv("HVDFILTER_CUDA", "0")
    with pytest.raises(SetupError, match="contradict each other: unset one"):
        cuda.decide(torch("13.0"))
    monkeypatch.setenv("HVDFILTER_CUDA", "yes")
    with pytest.raises(SetupError, match="must be 0, 1 or auto, not 'yes'"):
        cuda.decide(torch("13.0"))


def test_toolkit_behind_a_script_on_the_path_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Module systems and containers put a script or a link on the path, far from the toolkit.
    home = make_toolkit(tmp_path / "cuda-13.0", "13.0")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "nvcc").write_text(f'#!/bin/sh\nexec {home}/bin/nvcc "$@"\n')
    (bin_folder / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    assert toolkit.visible() == [Toolkit(home, "13.0")]


def test_registry_has_no_compiler_of_cuda_12() -> None:
    plain, more = (toolkit_wheels.requirements("13.0", with_runtime=w) for w in (False, True))
    assert "nvidia-cuda-nvcc==13.0.*" in plain
    # A torch for the CPU brings no CUDA run-time, which nvcc needs to link.
    assert set(more) - set(plain) == {"nvidia-cuda-runtime==13.0.*"}
    with pytest.raises(SetupError, match=r"CUDA 12\.8, of which the package registry has no"):
        toolkit_wheels.requirements("12.8")


def test_wheels_become_a_toolkit_of_links(tmp_path: Path) -> None:
    # As pip lays them out: the compiler in the environment, torch's libraries in the Python below.
    own, below = tmp_path / "own", tmp_path / "below"
    files = {
        own: ("cu13/bin/nvcc", "cu13/nvvm/bin/cicc", "cu13/include/crt/host_defines.h"),
        below: (
            "cu13/lib/libcudart.so.13",
            "cu13/lib/libcudart_static.a",
            "cu13/include/cublas_v2.h",
            "nccl/lib/libnccl.so.2",
            "nccl/include/nccl.h",
        ),
    }
    for site, names in files.items():
        for name in names:
            path = site / "nvidia" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    made = toolkit_wheels.link("13.0", [own, below], tmp_path / "cuda")
    nccl = toolkit_wheels.nccl_home([own, below], tmp_path / "cuda" / "nccl")
    assert made == Toolkit(tmp_path / "cuda", "13.0")
    assert made.nvcc.resolve() == own / "nvidia" / "cu13" / "bin" / "nvcc"
    # What linkers and CMake ask for by name, and the wheels lack.
    assert (made.home / "lib64" / "libcudart.so").read_text() == "cu13/lib/libcudart.so.13"
    assert (made.home / "lib64" / "libcudart_static.a").exists()
    assert (made.home / "include" / "cublas_v2.h").exists()
    assert (made.home / "include" / "crt" / "host_defines.h").exists()
    assert nccl is not None and (nccl / "lib" / "libnccl.so").read_text() == "nccl/lib/libnccl.so.2"
    # A set-up that is run again makes it again.
    assert toolkit_wheels.link("13.0", [own, below], tmp_path / "cuda") == made
    with pytest.raises(SetupError, match="hold no nvcc"):
        toolkit_wheels.link("13.0", [below], tmp_path / "other")
