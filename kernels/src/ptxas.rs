//! NVIDIA's assembler: where it is, what it makes of PTX, what it says about each kernel.
//!
//! It is not ours to ship and not needed to compile a model: drivers assemble PTX themselves. Where
//! it is found, an artifact holds machine code beside the text and opens faster.

use std::ffi::OsString;
use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sail_ir::artifact::KernelUsage;

/// Where it stands in a folder that holds a CUDA toolkit, and in one that a Python package makes.
const IN_TOOLKIT: [&str; 2] = ["cuda/bin/ptxas", "cuda/nvidia/cu13/bin/ptxas"];

/// Where CUDA's own installer puts it, which does not put it on the shell's path.
const INSTALLED: &str = "/usr/local/cuda/bin/ptxas";

/// Prints the folders of NVIDIA's Python packages, each of which has a folder with `bin` there.
const PACKAGES: &str = "import nvidia; print(*nvidia.__path__, sep='\\n')";

/// A release of the assembler: `13.5.37`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

/// The oldest that is used. Older ones make code of some `wgmma` that reads registers before they are
/// written, and say nothing.
const OLDEST: Version = Version([13, 3, 0]);

impl Version {
    /// In what `ptxas --version` prints: `Cuda compilation tools, release 13.5, V13.5.37`.
    fn read(said: &str) -> Option<Self> {
        let numbers = said.split(", V").nth(1)?.split_whitespace().next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self([next()?, next()?, next()?]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, build]) = self;
        write!(f, "{major}.{minor}.{build}")
    }
}

/// Machine code for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    pub bytes: Vec<u8>,
    /// What made it.
    pub assembler: Version,
    pub usage: Vec<KernelUsage>,
    /// What it warned of, line by line: `wgmma` that waits after every product, for one.
    pub warnings: Vec<String>,
}

/// Why there is no machine code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PtxasError {
    /// It cannot be started or its files cannot be written.
    Start { path: PathBuf, because: String },
    /// It is older than any that is right, or no ptxas.
    Old { path: PathBuf, found: Option<Version> },
    /// It refused the text.
    Refused { text: String },
}

impl fmt::Display for PtxasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { path, because } => {
                write!(f, "`{}` cannot be run\n  because {because}", path.display())
            }
            Self::Old { path, found } => {
                let found = found.map_or("does not say which".to_owned(), |it| format!("is {it}"));
                write!(
                    f,
                    "`{}` is not a ptxas that is used\n  because it {found}, and before {OLDEST} they make wrong code \
                     of some products of warpgroups",
                    path.display()
                )
            }
            Self::Refused { text } => write!(f, "ptxas refused the PTX\n  because {text}"),
        }
    }
}

impl std::error::Error for PtxasError {}

/// No assembler is where one is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// This executable, beside whose folders one is looked for.
    executable: PathBuf,
    /// What was found and is too old.
    old: Vec<PtxasError>,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no ptxas was found: `SAIL_PTXAS` names none, `cuda` in a folder above `{}` has none, nor has the \
             shell's path, `{INSTALLED}`, a package of `python3`",
            self.executable.display()
        )?;
        self.old.iter().try_for_each(|old| write!(f, "\n  and {old}"))
    }
}

impl std::error::Error for Absent {}

/// What helps where there is none, or one that is too old.
pub const HINT: &str =
    "`pip install nvidia-cuda-nvcc`, or name the ptxas of CUDA 13.3 or later with `SAIL_PTXAS`";

/// The assembler of this machine: what `SAIL_PTXAS` names, else `cuda/` in one of the folders above
/// this executable (`target/cuda`), else the `ptxas` that the shell would start, else that of CUDA's
/// installer, else that of a package which the shell's `python3` has. One that is too old is passed
/// over, unless it is named: [`assemble`] refuses that.
pub fn find() -> Result<PathBuf, Absent> {
    if let Some(named) = std::env::var_os("SAIL_PTXAS").filter(|named| !named.is_empty()) {
        return Ok(PathBuf::from(named));
    }
    let executable = std::env::current_exe().unwrap_or_default();
    let installed = || Some(PathBuf::from(INSTALLED)).filter(|place| place.is_file());
    let packaged = || folders_of_packages().iter().find_map(|folder| in_packages(folder));
    let places: [&dyn Fn() -> Option<PathBuf>; 4] =
        [&|| above(&executable), &of_shell, &installed, &packaged];
    let mut old = Vec::new();
    for path in places.iter().filter_map(|place| place()) {
        match in_scratch(&path, |folder| version(&path, folder)) {
            Ok(_) => return Ok(path),
            Err(error) => old.push(error),
        }
    }
    Err(Absent { executable, old })
}

/// That of a toolkit in a folder above `executable`.
fn above(executable: &Path) -> Option<PathBuf> {
    let mut places = executable
        .ancestors()
        .flat_map(|folder| IN_TOOLKIT.iter().map(move |place| folder.join(place)));
    places.find(|place| place.is_file())
}

fn of_shell() -> Option<PathBuf> {
    let answers = Command::new("ptxas").arg("--version").output();
    answers.is_ok_and(|said| said.status.success()).then(|| PathBuf::from("ptxas"))
}

/// Folders with NVIDIA's packages for Python; none where there is no Python.
fn folders_of_packages() -> Vec<PathBuf> {
    let said = Command::new("python3").args(["-c", PACKAGES]).output();
    let said = said.map(|said| said.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().map(PathBuf::from).collect()
}

/// That of a package in `folder`: `cu13`, or `cuda_nvcc` for CUDA 12; of several the last by name.
fn in_packages(folder: &Path) -> Option<PathBuf> {
    let packages = std::fs::read_dir(folder).ok()?.flatten();
    let places = packages.map(|package| package.path().join("bin/ptxas"));
    places.filter(|place| place.is_file()).max()
}

/// `ptxas`, or a copy of it in `folder` that may be run: packages for Python lack the bit for that.
fn runnable(ptxas: &Path, folder: &Path) -> std::io::Result<PathBuf> {
    let Ok(about) = std::fs::metadata(ptxas) else {
        // It is one of the shell's path, or starting it says what is wrong.
        return Ok(ptxas.to_owned());
    };
    if about.permissions().mode() & 0o111 != 0 {
        return Ok(ptxas.to_owned());
    }
    let copy = folder.join("ptxas");
    std::fs::copy(ptxas, &copy)?;
    std::fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// Why `ptxas` cannot be run.
fn start(ptxas: &Path) -> impl Fn(std::io::Error) -> PtxasError {
    |because| {
        let because = because.to_string();
        let because = because.split(" (os error").next().unwrap_or_default().to_lowercase();
        PtxasError::Start { path: ptxas.to_owned(), because }
    }
}

/// The release of a ptxas.
///
/// Refuses one that cannot be run, and one that is older than [`OLDEST`].
fn version(ptxas: &Path, folder: &Path) -> Result<Version, PtxasError> {
    let said = runnable(ptxas, folder).and_then(|it| Command::new(it).arg("--version").output());
    let said = said.map_err(start(ptxas))?;
    let found = Version::read(&String::from_utf8_lossy(&said.stdout));
    let path = ptxas.to_owned();
    found.filter(|found| *found >= OLDEST).ok_or(PtxasError::Old { path, found })
}

/// `work` with a folder of its own.
fn in_scratch<T>(
    ptxas: &Path,
    work: impl FnOnce(&Path) -> Result<T, PtxasError>,
) -> Result<T, PtxasError> {
    let folder = scratch().map_err(start(ptxas))?;
    let done = work(&folder);
    let _gone_anyway = std::fs::remove_dir_all(&folder);
    done
}

/// Assemble `text` for `architecture` (`sm_90a`) with the executable `ptxas`.
///
/// Refuses one that cannot be run or is too old, and text that it refuses.
pub fn assemble(ptxas: &Path, text: &str, architecture: &str) -> Result<Cubin, PtxasError> {
    in_scratch(ptxas, |folder| assemble_in(folder, (ptxas, text, architecture)))
}

fn assemble_in(
    folder: &Path,
    (ptxas, text, architecture): (&Path, &str, &str),
) -> Result<Cubin, PtxasError> {
    let assembler = version(ptxas, folder)?;
    let (source, output) = (folder.join("kernels.ptx"), folder.join("kernels.cubin"));
    let done = std::fs::write(&source, text).and_then(|()| {
        let arguments: [OsString; 6] = [
            format!("--gpu-name={architecture}").into(),
            "--verbose".into(),
            "--warn-on-spills".into(),
            "--output-file".into(),
            output.clone().into(),
            source.clone().into(),
        ];
        let done = Command::new(runnable(ptxas, folder)?).args(arguments).output()?;
        let bytes = if done.status.success() { std::fs::read(&output)? } else { Vec::new() };
        Ok((done, bytes))
    });
    let (done, bytes) = done.map_err(start(ptxas))?;
    let said = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        return Err(PtxasError::Refused { text: said.trim().to_owned() });
    }
    Ok(Cubin { bytes, assembler, usage: usage(&said), warnings: warnings(&said) })
}

/// What it warns of. Losses of speed are told as information, with a number.
fn warnings(said: &str) -> Vec<String> {
    let told = |line: &&str| line.starts_with("ptxas warning") || line.contains("(C75");
    said.lines().filter(told).map(str::to_owned).collect()
}

/// A folder of this call alone.
fn scratch() -> std::io::Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("sail-ptxas-{}-{number}", std::process::id()));
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

/// What `--verbose` says, kernel by kernel.
fn usage(said: &str) -> Vec<KernelUsage> {
    let mut all: Vec<KernelUsage> = Vec::new();
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let entry = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(KernelUsage { entry, ..KernelUsage::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            last.stack_bytes = number_before(line, " bytes stack frame");
            last.spill_bytes = number_before(line, " bytes spill stores")
                + number_before(line, " bytes spill loads");
        }
        if line.contains("Used ") {
            last.registers = number_before(line, " registers");
            last.barriers = number_before(line, " barriers");
        }
    }
    all
}

fn number_before(line: &str, words: &str) -> u32 {
    let before = line.split(words).next().filter(|before| before.len() < line.len());
    let digits = before.and_then(|before| before.rsplit([' ', ',']).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use sail_ir::target::Target;

    use super::*;
    use crate::kernel::Kernel;
    use crate::ptx::ptx;

    /// All that a thread can have.
    pub const MOST_REGISTERS: u32 = 255;

    /// The PTX of `kernels`, which [`judge`] lets pass.
    pub fn assemble_all(
        target: &Target,
        kernels: &[Box<dyn Kernel>],
        most_registers: u32,
    ) -> String {
        let kernels: Vec<&dyn Kernel> = kernels.iter().map(AsRef::as_ref).collect();
        let text = ptx(&kernels, target, 2).unwrap_or_else(|error| panic!("{error}")).text;
        if let Some(usage) = judge(&text, target, most_registers) {
            assert_eq!(usage.len(), kernels.len());
        }
        text
    }

    /// Where a ptxas is found, it warns of nothing in `text`, and no kernel spills or has more registers;
    /// what each has.
    pub fn judge(text: &str, target: &Target, most_registers: u32) -> Option<Vec<KernelUsage>> {
        let ptxas = match find() {
            Ok(ptxas) => ptxas,
            Err(absent) => {
                eprintln!("SKIPPED: nothing judges PTX for {target}: {absent}");
                return None;
            }
        };
        let architecture = target.ptx_architecture().expect("it is a CUDA target");
        let cubin =
            assemble(&ptxas, text, architecture).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(cubin.warnings, Vec::<String>::new());
        for usage in &cubin.usage {
            eprintln!("{target} {} {}", usage.registers, usage.entry);
            assert_eq!((usage.spill_bytes, usage.stack_bytes), (0, 0), "{usage:?}");
            assert!(usage.registers <= most_registers, "{usage:?}");
        }
        Some(cubin.usage)
    }

    #[test]
    fn reads_what_it_says_about_each_kernel() {
        let said = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'a' for 'sm_90a'\n\
            ptxas info    : Function properties for a\n    \
            8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 20 registers, used 1 barriers\n\
            ptxas info    : Compiling entry function 'b' for 'sm_90a'\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 0 barriers, 8 bytes cmem\n";
        let usage = usage(said);
        let of_a = KernelUsage {
            entry: "a".to_owned(),
            registers: 20,
            stack_bytes: 8,
            spill_bytes: 16,
            barriers: 1,
        };
        assert_eq!(usage[0], of_a);
        assert_eq!((usage[1].registers, usage[1].spill_bytes, usage.len()), (255, 0, 2));
    }

    #[test]
    fn one_of_a_toolkit_or_package_is_found_and_run_whatever_its_permissions() {
        let folder = scratch().unwrap();
        let place = |text: &str| {
            let place = folder.join(text);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(&place, "#!/bin/sh\n").unwrap();
            place
        };
        let executable = folder.join("tools/bin/sailc");
        assert_eq!(above(&executable), None);
        let toolkit = place("tools/cuda/bin/ptxas");
        assert_eq!(above(&executable), Some(toolkit));

        let packages = folder.join("site-packages/nvidia");
        assert_eq!(in_packages(&packages), None);
        place("site-packages/nvidia/cublas/lib/x");
        let older = place("site-packages/nvidia/cuda_nvcc/bin/ptxas");
        assert_eq!(in_packages(&packages), Some(older.clone()));

        let copy = runnable(&older, &folder).unwrap();
        assert_eq!(copy, folder.join("ptxas"));
        assert!(Command::new(&copy).arg("--version").output().is_ok());
        assert_eq!(runnable(&copy, &folder).unwrap(), copy, "it may be run already");
        let absent = folder.join("absent");
        assert_eq!(runnable(&absent, &folder).unwrap(), absent);
        let told = assemble(&absent, "", "sm_90a").unwrap_err().to_string();
        assert!(told.ends_with("because no such file or directory"), "{told}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn one_that_makes_wrong_code_is_not_used() {
        let folder = scratch().unwrap();
        let ptxas = folder.join("ptxas");
        let judge = |release: &str| {
            let text =
                format!("#!/bin/sh\necho 'ptxas: NVIDIA (R)\nCuda compilation tools, {release}'");
            std::fs::write(&ptxas, text).unwrap();
            std::fs::set_permissions(&ptxas, Permissions::from_mode(0o755)).unwrap();
            version(&ptxas, &folder)
        };
        assert_eq!(judge("release 13.3, V13.3.73"), Ok(Version([13, 3, 73])));
        assert_eq!(judge("release 14.0, V14.0.1"), Ok(Version([14, 0, 1])));
        let path = ptxas.clone();
        let old = PtxasError::Old { path, found: Some(Version([12, 9, 86])) };
        assert_eq!(judge("release 12.9, V12.9.86"), Err(old.clone()));
        assert!(old.to_string().contains("because it is 12.9.86"), "{old}");
        let told = judge("something else").unwrap_err().to_string();
        assert!(told.contains("does not say which"), "{told}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_it_loses_speed_by_is_a_warning() {
        let said = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n\
            ptxas warning : Registers are spilled to local memory in function 'a', 8 bytes spill stores\n";
        assert_eq!(warnings(said), said.lines().skip(1).collect::<Vec<_>>());
    }

    #[test]
    fn who_finds_none_says_where_it_looked() {
        let old = PtxasError::Old { path: "/usr/bin/ptxas".into(), found: None };
        let absent = Absent { executable: "/opt/bin/sailc".into(), old: vec![old] }.to_string();
        for place in
            ["SAIL_PTXAS", "/opt/bin/sailc", "shell's path", INSTALLED, "python3", "/usr/bin/ptxas"]
        {
            assert!(absent.contains(place), "{absent}");
        }
    }
}
