"""One peer, one process, one JSON document: contender.py COLUMN MODEL.gguf --probe FILE [--vision FILE.gguf]

Measures what `sail bench` measures, in its order: the start, then in turn an image tile, a prompt and tokens after it.
A peer is imported only when it is measured; each has a Python of its own, made by setup.sh.
"""
import argparse
import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

SHORT = 16  # tokens of the prompt of the start
TILE_SIDE, TILE_TOKENS = 448, 256
POSITIONS = 2048


def ids(count, seed):
    """Tokens of no meaning; llama.cpp and ik_llama.cpp take lists, OpenVINO a tensor of them."""
    draw = random.Random(seed)
    return [draw.randrange(100, 150_000) for _ in range(count)]


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Llama:
    """llama.cpp as it comes: weights mapped or repacked as it chooses, flash attention as it chooses."""

    package = "llama-cpp-python"

    def __init__(self, a):
        self.api = api = importlib.import_module("llama_cpp")
        # The callback lives as long as the peer does; without it each load writes pages of text.
        self.silence = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self.silence, ctypes.c_void_p(0))
        api.llama_backend_init()
        self.a = a

    def system(self):
        return self.api.llama_print_system_info().decode()

    def open(self):
        api, a = self.api, self.a
        self.model = api.llama_model_load_from_file(str(a.model).encode(), api.llama_model_default_params())
        assert self.model, f"llama.cpp does not load {a.model}"
        wish = api.llama_context_default_params()
        wish.n_ctx = wish.n_batch = POSITIONS
        wish.n_threads = wish.n_threads_batch = a.threads
        self.context = api.llama_init_from_model(self.model, wish)
        assert self.context, "llama.cpp makes no context"

    def forward(self, tokens, position):
        """Logits of the last of these tokens, which follow what was given since `clear`."""
        array = (self.api.llama_token * len(tokens))(*tokens)  # the batch points into it
        batch = self.api.llama_batch_get_one(array, len(tokens))
        assert self.api.llama_decode(self.context, batch) == 0, f"llama.cpp fails at position {position}"
        assert self.api.llama_get_logits_ith(self.context, -1), "llama.cpp has no logits"

    def clear(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def rewind(self, position):
        """Forget everything from this position on."""
        memory = self.api.llama_get_memory(self.context)
        assert self.api.llama_memory_seq_rm(memory, 0, position, -1), f"llama.cpp does not go back to position {position}"

    def open_vision(self, path):
        """Its multimodal encoder, with one square picture of noise cut to one tile."""
        self.mtmd = mtmd = importlib.import_module("llama_cpp.mtmd_cpp")
        mtmd.mtmd_log_set(self.silence, ctypes.c_void_p(0))
        wish = mtmd.mtmd_context_params_default()
        wish.use_gpu, wish.n_threads, wish.print_timings = False, self.a.threads, False
        self.eyes = mtmd.mtmd_init_from_file(str(path).encode(), self.model, wish)
        assert self.eyes, f"llama.cpp does not load {path}"
        pixels = random.Random(1).randbytes(3 * TILE_SIDE * TILE_SIDE)
        bitmap = mtmd.mtmd_bitmap_init(TILE_SIDE, TILE_SIDE, (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels))
        marker = mtmd.mtmd_default_marker()
        text = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
        self.chunks = mtmd.mtmd_input_chunks_init()
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        assert mtmd.mtmd_tokenize(self.eyes, self.chunks, ctypes.byref(text), bitmaps, 1) == 0, "llama.cpp refuses the picture"
        chunks = [mtmd.mtmd_input_chunks_get(self.chunks, i) for i in range(mtmd.mtmd_input_chunks_size(self.chunks))]
        pictures = [c for c in chunks if mtmd.mtmd_input_chunk_get_type(c) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE]
        tokens = [mtmd.mtmd_input_chunk_get_n_tokens(c) for c in pictures]
        assert tokens == [TILE_TOKENS], f"one tile should be {TILE_TOKENS} tokens, llama.cpp makes {tokens}"
        self.picture = pictures[0]

    def see(self):
        assert self.mtmd.mtmd_encode_chunk(self.eyes, self.picture) == 0, "llama.cpp does not encode the picture"


class Ik:
    """ik_llama.cpp with flash attention; `repack` rearranges weights at load, its option `-rtr`."""

    package = "ik-llama-cpp-python"
    repack = False

    def __init__(self, a):
        # Its libraries do not say where they find each other.
        package = importlib.util.find_spec("ik_llama_cpp").submodule_search_locations[0]
        ctypes.CDLL(str(Path(package) / "lib/libggml.so"), mode=ctypes.RTLD_GLOBAL)
        self.api = importlib.import_module("ik_llama_cpp._ctypes_api")
        self.batches = importlib.import_module("ik_llama_cpp._internals").make_batch_range
        self.api.llama_backend_init()
        self.a = a

    def system(self):
        info = self.api._lib.llama_print_system_info
        info.restype = ctypes.c_char_p
        return info().decode()

    def open(self):
        api, a = self.api, self.a
        wish = api.llama_model_default_params()
        wish.n_gpu_layers = 0
        if self.repack:
            wish.repack_tensors, wish.use_mmap = True, False
        self.model = api.llama_model_load_from_file(str(a.model).encode(), wish)
        assert self.model, f"ik_llama.cpp does not load {a.model}"
        wish = api.llama_context_default_params()
        wish.n_ctx = wish.n_batch = POSITIONS
        wish.n_threads = wish.n_threads_batch = a.threads
        wish.flash_attn = True
        self.context = api.llama_init_from_model(self.model, wish)
        assert self.context, "ik_llama.cpp makes no context"

    def forward(self, tokens, position):
        batch = self.batches(tokens, pos_start=position)
        assert self.api.llama_decode(self.context, batch) == 0, f"ik_llama.cpp fails at position {position}"
        assert self.api.llama_get_logits_ith(self.context, -1), "ik_llama.cpp has no logits"
        self.api.llama_batch_free(batch)

    def clear(self):
        self.api.llama_kv_cache_clear(self.context)

    def rewind(self, position):
        remove = self.api._lib.llama_kv_cache_seq_rm  # the package has no name for it
        remove.argtypes, remove.restype = [ctypes.c_void_p] + 3 * [ctypes.c_int32], ctypes.c_bool
        assert remove(self.context, 0, position, -1), f"ik_llama.cpp does not go back to position {position}"


class IkRepack(Ik):
    repack = True


class OpenVino:
    """OpenVINO GenAI on the same GGUF, with its own settings for the CPU."""

    package = "openvino-genai"

    def __init__(self, a):
        self.numpy = importlib.import_module("numpy")
        self.core = importlib.import_module("openvino")
        self.genai = importlib.import_module("openvino_genai")
        self.a = a

    def system(self):
        return " ".join(self.core.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))

    def open(self):
        self.pipeline = self.genai.LLMPipeline(str(self.a.model), "CPU", INFERENCE_NUM_THREADS=self.a.threads)

    def answer(self, tokens, count):
        """Its own times of `count` tokens after these: seconds to the first, seconds of each further one."""
        array = self.numpy.array([tokens], self.numpy.int64)
        given = self.genai.TokenizedInputs(self.core.Tensor(array), self.core.Tensor(self.numpy.ones_like(array)))
        wish = self.genai.GenerationConfig()
        wish.do_sample, wish.ignore_eos, wish.apply_chat_template = False, True, False
        wish.max_new_tokens = wish.min_new_tokens = count
        times = self.pipeline.generate(given, wish).perf_metrics
        assert times.get_num_generated_tokens() == count, "OpenVINO wrote another number of tokens"
        return times.get_ttft().mean / 1e3, times.get_tpot().mean / 1e3


PEERS = {"llama": Llama, "ik": Ik, "ik-repack": IkRepack, "openvino": OpenVino}


def probe(a):
    """Bytes that this machine reads in a second, now."""
    run = subprocess.run([a.probe, str(a.threads)], check=True, stdout=subprocess.PIPE, text=True)
    return float(run.stdout) * 1e9


def measure_calls(peer, a, found):
    """A peer that is called for each batch of tokens."""
    def start():
        peer.open()
        peer.forward(ids(SHORT, 0), 0)

    found["start"] = [seconds(start)]
    if a.vision:
        peer.open_vision(a.vision)
    for turn in range(1, a.repeat + 1):
        if a.vision:
            found["tile"].append(seconds(peer.see))
        peer.clear()
        prompt = ids(a.prefill, turn)
        found["prefill"].append(a.prefill / seconds(lambda: peer.forward(prompt, 0)))
        before = probe(a)
        def write():
            for position, token in enumerate(ids(a.decode, a.repeat + turn), a.prefill):
                peer.forward([token], position)
        found["decode"].append(a.decode / seconds(write))
        found["read"].append((before + probe(a)) / 2)


def take_turns(peer, a):
    """For each line that comes in, write tokens after one prompt, and print the seconds they took."""
    peer.open()
    peer.forward(ids(a.prefill, 1), 0)
    for turn, _ in enumerate(sys.stdin):
        tokens = ids(a.decode, turn)
        def write():
            for position, token in enumerate(tokens, a.prefill):
                peer.forward([token], position)
        print(f"{seconds(write):.6f}", flush=True)
        peer.rewind(a.prefill)


def measure_pipeline(peer, a, found):
    """A peer that answers whole prompts: the first probe cannot stand between prompt and answer."""
    def start():
        peer.open()
        peer.answer(ids(SHORT, 0), 1)

    found["start"] = [seconds(start)]
    for turn in range(1, a.repeat + 1):
        before = probe(a)
        first, further = peer.answer(ids(a.prefill, turn), a.decode + 1)
        found["prefill"].append(a.prefill / first)
        found["decode"].append(1 / further)
        found["read"].append((before + probe(a)) / 2)


def check(peer):
    """Print what the peer was compiled for; fail if it lacks a dot product that this processor has."""
    system = peer.system()
    version = importlib.metadata.version(peer.package)
    print(f"{peer.package} {version}: {system}")
    flags = Path("/proc/cpuinfo").read_text()
    for flag in ("avx512_vnni", "avx512_bf16"):
        if f" {flag}" in flags and isinstance(peer, (Llama, Ik)) and f"{flag.upper()} = 1" not in system:
            sys.exit(f"{peer.package} was compiled without {flag}")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("column", choices=PEERS)
    p.add_argument("model", nargs="?", type=Path)
    p.add_argument("--vision", type=Path)
    p.add_argument("--probe", type=Path)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prefill", type=int, default=512)
    p.add_argument("--decode", type=int, default=64)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--turns", action="store_true", help="decode at each line of standard input")
    p.add_argument("--check", action="store_true", help="say what the peer was compiled for, measure nothing")
    a = p.parse_args()
    peer = PEERS[a.column](a)
    if a.check:
        return check(peer)
    if a.turns:
        return take_turns(peer, a)
    found = {"start": [], "tile": [], "prefill": [], "decode": [], "read": []}
    (measure_pipeline if a.column == "openvino" else measure_calls)(peer, a, found)
    found["version"] = f"{peer.package} {importlib.metadata.version(peer.package)}"
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps(found))


if __name__ == "__main__":
    main()
