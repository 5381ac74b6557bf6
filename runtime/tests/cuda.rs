//! The command `sail` on a GPU that is simulated: the same answers as on this machine's processor,
//! and what a person reads when a driver or a GPU fails.
//!
//! `tests/fakecuda` of the workspace stands in for the driver; `sail` finds it as it finds a real one.

#[path = "toy/gpu.rs"]
mod gpu;
mod toy;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use expect_test::{Expect, expect};

/// A folder with `libcuda.so.1`, built from the present sources.
static DRIVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "sail-fakecuda"]);
    if target.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "the driver does not build");
    let folder = target.join("fakecuda");
    fs::create_dir_all(&folder).unwrap();
    // Under a name of its own first: another process may be looking.
    let new = folder.join(format!("new.{}", std::process::id()));
    fs::copy(target.join("libsail_fakecuda.so"), &new).unwrap();
    fs::rename(new, folder.join("libcuda.so.1")).unwrap();
    folder
});

/// `sail`, without a driver unless a test gives it one.
fn sail(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sail"));
    command.args(arguments).current_dir(folder).env_clear();
    command
}

/// `sail` on the simulated GPU, where `faults` go wrong.
fn on_gpu(folder: &Path, faults: &str, arguments: &[&str]) -> Command {
    let mut command = sail(folder, arguments);
    command.env("LD_LIBRARY_PATH", &*DRIVER).env("SAIL_FAKECUDA", faults);
    command
}

/// Standard output of a command that must succeed.
fn output(mut command: Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error and exit status of a command that must fail.
#[track_caller]
fn failure(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "{command:?} has a result");
    let errors = String::from_utf8(output.stderr).unwrap();
    format!("{errors}exit {}\n", output.status.code().unwrap())
}

#[track_caller]
fn fails(command: Command, expected: Expect) {
    expected.assert_eq(&failure(command));
}

struct Toys {
    folder: tempfile::TempDir,
}

/// `toy.sail` for this machine, `gpu.sail` for a GPU, and two pictures.
fn toys() -> Toys {
    let folder = tempfile::tempdir().unwrap();
    toy::write(folder.path());
    gpu::write_gpu(folder.path(), "gpu", gpu::PTX, &[]);
    for (name, side) in [("small.png", 3), ("wide.png", 8)] {
        let image = image::RgbImage::from_fn(side * 2, side, |x, y| {
            image::Rgb([(x * 37) as u8, (y * 61) as u8, 90])
        });
        image.save(folder.path().join(name)).unwrap();
    }
    Toys { folder }
}

impl Toys {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Run on the processor and on the GPU: equal output.
    fn same(&self, arguments: &[&str]) -> String {
        let with = |file| [&["run", file], arguments].concat();
        let host = output(sail(self.path(), &with("toy.sail")));
        let simulated = output(on_gpu(self.path(), "", &with("gpu.sail")));
        assert_eq!(without_times(&simulated), without_times(&host), "{arguments:?}");
        host
    }
}

/// Members of a JSON document that are no times.
fn without_times(text: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(mut members)) => {
            members.remove("timings");
            serde_json::Value::Object(members).to_string()
        }
        _ => text.to_owned(),
    }
}

const ASK: [&str; 6] =
    ["--prompt", "how many are there?", "--max-tokens", "12", "--json", "--system"];

#[test]
fn a_gpu_answers_as_the_processor_does() {
    let toys = toys();
    let long = "a long story ".repeat(16);
    toys.same(&[&ASK[..], &["be brief"]].concat());
    toys.same(&[&ASK[..], &[long.as_str()]].concat());
    toys.same(&[&ASK[..], &["x", "--image", "small.png"]].concat());
    let pictures = ["x", "--image", "wide.png", "--image", "small.png", "--max-tiles", "6"];
    toys.same(&[&ASK[..], &pictures].concat());
}

#[test]
fn weights_of_several_pieces_all_arrive() {
    let folder = tempfile::tempdir().unwrap();
    gpu::write_heavy(folder.path(), "heavy", [1, 20, 300]);
    let run = [&["run", "heavy.sail"], &ASK[..], &["x"]].concat();
    let answer: serde_json::Value =
        serde_json::from_str(&output(on_gpu(folder.path(), "", &run))).unwrap();
    let ids = |name: &str| -> Vec<u64> { serde_json::from_value(answer[name].clone()).unwrap() };
    let mut sum: u64 = ids("prompt").iter().map(|id| id + 321).sum();
    assert!(ids("ids").len() > 3);
    for id in ids("ids") {
        assert_eq!(id, sum % u64::from(toy::VOCABULARY));
        sum += id + 321;
    }
}

#[test]
fn taps_of_a_gpu_are_those_of_the_processor() {
    let toys = toys();
    let taps = |folder: &'static str| {
        [&ASK[..], &["x", "--image", "wide.png", "--tap", "*", "--tap-out", folder]].concat()
    };
    output(sail(toys.path(), &[&["run", "toy.sail"], &taps("host")[..]].concat()));
    output(on_gpu(toys.path(), "", &[&["run", "gpu.sail"], &taps("gpu")[..]].concat()));
    let names = |folder: &str| -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(toys.path().join(folder))
            .unwrap()
            .map(|entry| PathBuf::from(entry.unwrap().file_name()))
            .collect();
        names.sort();
        names
    };
    assert!(names("host").len() > 3);
    assert_eq!(names("gpu"), names("host"));
    for name in names("host") {
        let [host, gpu] =
            ["host", "gpu"].map(|folder| fs::read(toys.path().join(folder).join(&name)).unwrap());
        assert!(host == gpu, "{} differs", name.display());
    }
}

#[test]
fn steps_of_a_gpu_have_times() {
    let toys = toys();
    let arguments =
        [&["run", "gpu.sail"], &ASK[..], &["x", "--context", "64", "--trace", "trace"]].concat();
    output(on_gpu(toys.path(), "memory=16M", &arguments));
    let trace = fs::read_to_string(toys.path().join("trace")).unwrap();
    let calls: Vec<serde_json::Value> =
        trace.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(calls.len() > 12, "{trace}");
    let steps: Vec<_> = calls.iter().flat_map(|call| call["steps"].as_array().unwrap()).collect();
    assert!(steps.len() > 36, "{trace}");
}

#[test]
fn a_gpu_is_measured_against_its_own_limits() {
    let toys = toys();
    let sizes = ["--prefill", "20", "--decode", "3", "--repeat", "1", "--tiles", "2", "--json"];
    let arguments = [&["bench", "gpu.sail", "--context", "200"], &sizes[..]].concat();
    let text = output(on_gpu(toys.path(), "memory=16M", &arguments));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["threads"], 1, "{report:#}");
    // Four multiprocessors at 1 GHz, 2,048 operations each in a cycle.
    assert!(text.contains("8192000000000"), "{report:#}");
    assert_eq!(report["limits"]["operations_origin"], "data_sheet");
    let device = report["device"].as_str().unwrap();
    assert!(device.ends_with("compute capability 8.0, PTX assembled by the driver"), "{device}");
    let given = [&arguments[..], &["--operations", "3e12,7e12"]].concat();
    let report: serde_json::Value =
        serde_json::from_str(&output(on_gpu(toys.path(), "memory=16M", &given))).unwrap();
    assert_eq!(report["limits"]["operations"]["median"], 3e12);
    assert_eq!(report["limits"]["operations_origin"], "given");
}

#[test]
fn a_bench_of_a_gpu_times_calls_as_they_are_made_and_kernels_apart() {
    let toys = toys();
    let sizes = ["--prefill", "20", "--decode", "3", "--repeat", "1", "--tiles", "0"];
    let arguments = [&["bench", "gpu.sail", "--batch", "5"], &sizes[..]].concat();
    let text = output(on_gpu(toys.path(), "memory=16M", &[&arguments[..], &["--json"]].concat()));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let families = report["families"]["decode"].as_object().unwrap();
    let seconds = families.values().map(|family| family["seconds"].as_f64().unwrap());
    assert!(seconds.sum::<f64>() > 0.0, "{report:#}");
    let together = report["decode_rows"].as_u64().unwrap();
    let decode = report["runs"].as_array().unwrap().last().unwrap();
    assert_eq!(decode["name"], "5 x decode 3 at 20");
    assert_eq!(decode["calls"], 3 * 5_u64.div_ceil(together));
    assert!(decode["steps_per_call"].as_f64().unwrap() > 0.0, "{report:#}");
    // What is not marked is recorded: a driver that makes no graph shows that there was to be one.
    let graphless = on_gpu(toys.path(), "memory=16M,graph:1=801", &arguments);
    let output = { graphless }.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("graph"), "{errors}");
}

#[test]
fn machine_code_that_the_gpu_does_not_take_is_no_loss() {
    let toys = toys();
    gpu::write_gpu(toys.path(), "both", gpu::PTX, b"\x7fELF of another GPU\0");
    let arguments = [&["run", "both.sail"], &ASK[..], &["x"]].concat();
    let host = [&["run", "toy.sail"], &ASK[..], &["x"]].concat();
    let both = on_gpu(toys.path(), "", &arguments).output().unwrap();
    expect![[r#"
        warning: the CUDA driver assembles the kernels, which takes time at every start
          because it does not take the machine code in the file: no kernel image for the device (CUDA_ERROR_NO_BINARY_FOR_GPU)
    "#]].assert_eq(&String::from_utf8(both.stderr).unwrap());
    let both = String::from_utf8(both.stdout).unwrap();
    assert_eq!(without_times(&both), without_times(&output(sail(toys.path(), &host))));
}

#[test]
fn without_a_driver_or_a_gpu_a_person_reads_what_to_do() {
    let toys = toys();
    let run = [&["run", "gpu.sail"], &ASK[..], &["x"]].concat();
    fails(
        sail(toys.path(), &run),
        expect![[r#"
        error[SC0611]: no CUDA driver found
          because `libcuda.so.1` is not on the library path

        hint: install NVIDIA's driver, or compile the checkpoint for this machine with `--target host`
        exit 8
    "#]],
    );
    fails(
        on_gpu(toys.path(), "version=11080", &run),
        expect![[r#"
        error[SC0613]: the CUDA driver is too old
          because it is of CUDA 11.8, the code needs 12.0

        hint: install a newer driver; nothing else of CUDA is needed
        exit 8
    "#]],
    );
    fails(
        on_gpu(toys.path(), "init:1=803", &run),
        expect![[r#"
        error[SC0612]: the CUDA driver does not start
          because of: system has unsupported display driver (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)

        hint: `nvidia-smi` says what the driver sees; `CUDA_VISIBLE_DEVICES` may hide GPUs
        exit 8
    "#]],
    );
    fails(
        on_gpu(toys.path(), "count=0", &run),
        expect![[r#"
        error[SC0614]: there is no GPU
          because the CUDA driver finds none

        hint: `nvidia-smi` says what the driver sees; `CUDA_VISIBLE_DEVICES` may hide GPUs
        exit 8
    "#]],
    );
    let second = [&run[..], &["--device", "cuda:1"]].concat();
    fails(
        on_gpu(toys.path(), "", &second),
        expect![[r#"
        error[SC0614]: there is no GPU number 1
          because the CUDA driver finds 1, counted from 0

        hint: the first one is `--device cuda:0`
        exit 8
    "#]],
    );
}

#[test]
fn an_artifact_for_something_else_is_refused_by_name() {
    let toys = toys();
    let run = [&["run", "gpu.sail"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "capability=75", &run),
        expect![[r#"
            error[SC0615]: this artifact is for `sm_80`, which the GPU does not run
              in `gpu.sail`
              because `Simulated GPU` has compute capability 7.5

            hint: choose another GPU with `--device cuda:N`, or compile again with another `--target`
            exit 4
        "#]],
    );
    gpu::write_roomy(toys.path(), "roomy", 120 << 10);
    let roomy = [&["run", "roomy.sail"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "capability=86", &roomy),
        expect![[r#"
        error[SC0616]: a kernel does not fit the GPU
          in `roomy.sail`
          because a block of `see` takes 122880 bytes of shared memory: invalid argument (CUDA_ERROR_INVALID_VALUE)

        hint: kernels are shaped for A100, H100 and H200; `--device cuda:N` chooses another GPU
        exit 4
    "#]],
    );
    let host = [&run[..], &["--device", "host"]].concat();
    fails(
        sail(toys.path(), &host),
        expect![[r#"
        error[SC0411]: `--device host` does not run this artifact
          in `gpu.sail`
          because it was compiled for `sm_80`

        hint: without `--device` it runs on a GPU, `--target` chooses when compiling
        exit 4
    "#]],
    );
    let toy = [&["run", "toy.sail", "--device", "cuda"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "", &toy),
        expect![[r#"
        error[SC0411]: `--device cuda:0` does not run this artifact
          in `toy.sail`
          because it was compiled for `x86-64-v3`

        hint: without `--device` it runs on this machine's processor, `--target` chooses when compiling
        exit 4
    "#]],
    );
    let word = [&["run", "toy.sail", "--device", "gpu"], &ASK[..], &["x"]].concat();
    fails(
        sail(toys.path(), &word),
        expect![[r#"
        error: invalid value 'gpu' for '--device <D>': devices are `auto`, `host`, `cuda:0`, `cuda:1` and so on, and `null`

        For more information, try '--help'.
        exit 2
    "#]],
    );
}

#[test]
fn text_that_the_driver_does_not_take_comes_with_its_log() {
    let toys = toys();
    gpu::write_gpu(toys.path(), "bad", &gpu::PTX.replace("selp.b32", "selp.b33"), &[]);
    let run = [&["run", "bad.sail"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "", &run),
        expect![[r#"
            error[SC0617]: the CUDA driver does not take the artifact's code
              in `bad.sail`
              because of: a PTX JIT compilation failed (CUDA_ERROR_INVALID_PTX)
                the instruction `selp.b33` is not known at line 355 `selp.b33 	%r5, 0, %r4, %p2;` of kernel `shift` (Text)
            exit 8
        "#]],
    );
    let run = [&["run", "gpu.sail"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "load:1=222", &run),
        expect![[r#"
        error[SC0613]: the CUDA driver is too old
          because it is of CUDA 12.4, the code needs one that reads PTX 8.0

        hint: install a newer driver; nothing else of CUDA is needed
        exit 8
    "#]],
    );
}

#[test]
fn memory_that_is_not_there_is_counted_out() {
    let toys = toys();
    let run = [&["run", "gpu.sail"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "memory=3M", &run),
        expect![[r#"
            error[SC0601]: there is no memory for a run of 4 MB
              because of: the GPU has 3 MB free of 3

            hint: a smaller `--context` needs less
            exit 7
        "#]],
    );
    fails(
        on_gpu(toys.path(), "alloc:1=OOM", &run),
        expect![[r#"
        error[SC0601]: there is no memory for the weights of 4 MB
          because of: out of memory (CUDA_ERROR_OUT_OF_MEMORY)

        hint: weights of fewer bits need less: `sailc compile --quant int8` or `int4`
        exit 7
    "#]],
    );
    fails(
        on_gpu(toys.path(), "alloc:4=OOM", &run),
        expect![[r#"
        error[SC0601]: there is no memory for the arena of 1 MB
          because of: out of memory (CUDA_ERROR_OUT_OF_MEMORY)

        hint: a smaller `--context` needs less
        exit 7
    "#]],
    );
}

#[test]
fn memory_that_the_driver_itself_lacks_is_told_with_what_it_was_for() {
    let toys = toys();
    gpu::write_gpu(toys.path(), "both", gpu::PTX, b"\x7fELF of another GPU\0");
    for (file, faults, doing) in [
        ("gpu.sail", "load:1=OOM", "take the kernels"),
        ("gpu.sail", "graph:1=OOM", "begin a graph"),
        ("gpu.sail", "launch:1=OOM", "launch `embed`"),
        ("both.sail", "load:1=OOM", "take machine code"),
    ] {
        let run = [&["run", file], &ASK[..], &["x"]].concat();
        let expected = format!(
            "error[SC0620]: the GPU has no memory left to {doing}\n  \
             because of: out of memory (CUDA_ERROR_OUT_OF_MEMORY)\n\n\
             hint: `nvidia-smi` says which programs have its memory; a smaller `--context` needs less\n\
             exit 7\n"
        );
        assert_eq!(failure(on_gpu(toys.path(), faults, &run)), expected);
    }
}

#[test]
fn a_gpu_that_fails_is_named_with_the_work_it_failed_in() {
    let toys = toys();
    let run = [&["run", "gpu.sail"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "launch:5=719", &run),
        expect![[r#"
            error[SC0619]: the GPU failed and is lost to this run
              in a call of `prefill`
              because of: unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED)

            hint: run again; if it happens again, `dmesg` and `nvidia-smi -q` say whether the hardware is at fault
            exit 8
        "#]],
    );
    fails(
        on_gpu(toys.path(), "load:1=700", &run),
        expect![[r#"
        error[SC0619]: the GPU failed and is lost to this run
          in an attempt to begin a stream
          because of: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS)

        hint: run again; if it happens again, `dmesg` and `nvidia-smi -q` say whether the hardware is at fault
        exit 8
    "#]],
    );
    // In a graph: the prompt takes some launches of 4, a token 3.
    fails(
        on_gpu(toys.path(), "wait:12=700", &run),
        expect![[r#"
            error[SC0619]: the GPU failed and is lost to this run
              in a call of `decode`
              because of: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS)

            hint: run again; if it happens again, `dmesg` and `nvidia-smi -q` say whether the hardware is at fault
            exit 8
        "#]],
    );
    fails(
        on_gpu(toys.path(), "copy:9=1", &run),
        expect![[r#"
            error[SC0618]: the CUDA driver refuses to copy from the GPU
              because of: invalid argument (CUDA_ERROR_INVALID_VALUE)
            exit 8
        "#]],
    );
    fails(
        on_gpu(toys.path(), "graph:1=801", &run),
        expect![[r#"
        error[SC0618]: the CUDA driver refuses to begin a graph
          because of: operation not supported (CUDA_ERROR_NOT_SUPPORTED)
        exit 8
    "#]],
    );
    // A kernel that writes where nothing is.
    gpu::write_gpu(
        toys.path(),
        "wild",
        &gpu::PTX.replace("mul.wide.u32 \t%rd10, %r1, 256", "mov.b64 \t%rd10, 0x7000000000"),
        &[],
    );
    let wild = [&["run", "wild.sail"], &ASK[..], &["x"]].concat();
    fails(
        on_gpu(toys.path(), "", &wild),
        expect![[r#"
            fakecuda: no allocation is at global address 0x107000310000 at line 68 `st.global.b32 	[%rd2], %r3;` of kernel `embed` in block [0, 0, 0] thread [0, 0, 0] (OutOfBounds)
            error[SC0619]: the GPU failed and is lost to this run
              in a call of `prefill`
              because of: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS)

            hint: run again; if it happens again, `dmesg` and `nvidia-smi -q` say whether the hardware is at fault
            exit 8
        "#]],
    );
}
