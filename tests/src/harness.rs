//! Runs the tests of the house: names that are sentences, loud skips, one closing line.
//!
//! A module is a function `tests() -> Vec<Test>` and a line in `house.rs`. A test body returns
//! `()`, an [`Outcome`] or a `Result<(), Outcome>`; a panic is a failure.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sail_ir::Help;
use sail_ir::help::report;

/// Threads that independent tests are run on.
const THREADS: usize = 2;

/// Options of Rust's own harness that people and editors pass; they change nothing here.
const IGNORED: [&str; 5] = ["--nocapture", "--no-capture", "--quiet", "-q", "--show-output"];

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// What differed, over as many lines as it takes.
    Failed(String),
    /// What was missing; equal reasons are counted together.
    Skipped(String),
}

/// A failure with the text of `cause`.
pub fn failed(cause: impl Display) -> Outcome {
    Outcome::Failed(cause.to_string())
}

/// A failure with everything an error of the house says.
pub fn told(error: impl Help) -> Outcome {
    Outcome::Failed(report(&error))
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Passed
    }
}

impl From<Result<(), Self>> for Outcome {
    fn from(result: Result<(), Self>) -> Self {
        result.err().unwrap_or(Self::Passed)
    }
}

impl From<String> for Outcome {
    fn from(cause: String) -> Self {
        Self::Failed(cause)
    }
}

/// One sentence about behaviour, and the code that holds the house to it.
pub struct Test {
    name: String,
    run: Box<dyn Fn() -> Outcome + Send + Sync>,
    independent: bool,
    long: bool,
    judges: bool,
}

impl Test {
    /// A test that runs alone, after the independent ones.
    pub fn new<R: Into<Outcome>>(
        name: impl Into<String>,
        run: impl Fn() -> R + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            run: Box::new(move || run().into()),
            independent: false,
            long: false,
            judges: false,
        }
    }

    /// May run beside others: uses one core, measures no time, shares no folder.
    #[must_use]
    pub fn independent(mut self) -> Self {
        self.independent = true;
        self
    }

    /// Judges what the independent tests of its module did: runs after them, and is left out where any of
    /// them is.
    #[must_use]
    pub fn judging(mut self) -> Self {
        self.judges = true;
        self
    }

    /// Takes minutes: is skipped, unless `--long` asks for such tests and no others.
    #[must_use]
    pub fn long(mut self) -> Self {
        self.long = true;
        self
    }

    /// The same, or what says so where tests that are as `long` are not asked for.
    fn asked(self, long: bool) -> Self {
        if long || !self.long {
            return self;
        }
        let skip = || Outcome::Skipped("takes minutes; `cargo long` runs it".to_owned());
        Self { run: Box::new(skip), ..self }
    }
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Test({})", self.name)
    }
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// Parts of names; a test runs when it contains any of them.
    filters: Vec<String>,
    list: bool,
    times: bool,
    long: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--list" => options.list = true,
                "--times" => options.times = true,
                "--long" => options.long = true,
                text if IGNORED.contains(&text) => {}
                text if text.starts_with('-') => {
                    return Err(format!(
                        "unknown option `{text}`; the harness takes names, `--list`, `--times` and `--long`"
                    ));
                }
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// Those of `tests`, all of one `module`, that are asked for, under their full names.
    fn chosen(&self, module: &str, tests: Vec<Test>) -> Vec<Test> {
        let named =
            tests.into_iter().map(|test| Test { name: format!("{module}: {}", test.name), ..test });
        let (mut chosen, others): (Vec<_>, Vec<_>) =
            named.partition(|test: &Test| self.wants(&test.name) && (test.long || !self.long));
        if others.iter().any(|test| test.independent) {
            chosen.retain(|test| !test.judges);
        }
        chosen.into_iter().map(|test| test.asked(self.long)).collect()
    }
}

/// Run the tests of `modules` that the command line asks for; success when none failed.
pub fn main(modules: Vec<(&str, Vec<Test>)>, arguments: impl Iterator<Item = String>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let chosen = modules.into_iter().flat_map(|(module, tests)| options.chosen(module, tests));
    let tests: Vec<Test> = chosen.collect();
    if options.list {
        tests.iter().for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    let records = run(&tests);
    if options.times {
        print!("{}", times(&records));
    }
    let (text, failures) = summary(&records);
    print!("{text}");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Record<'a> {
    name: &'a str,
    outcome: Outcome,
    time: Duration,
}

/// Independent tests first, two at a time, then the others one by one. Order of `tests` is kept.
fn run(tests: &[Test]) -> Vec<Record<'_>> {
    remember_panics();
    let records = Mutex::new(Vec::with_capacity(tests.len()));
    let (independent, alone): (Vec<_>, Vec<_>) =
        tests.iter().enumerate().partition(|(_, test)| test.independent);
    for (list, threads) in [(independent, THREADS), (alone, 1)] {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((index, test)) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                let start = Instant::now();
                let outcome = judge(test);
                if let Outcome::Failed(cause) = &outcome {
                    eprintln!("failed: {}\n{}\n", test.name, indented(cause));
                }
                let record = Record { name: &test.name, outcome, time: start.elapsed() };
                records.lock().expect("no test runs under the lock").push((*index, record));
            }
        };
        thread::scope(|scope| {
            (0..threads).for_each(|_| {
                scope.spawn(work);
            });
        });
    }
    let mut records = records.into_inner().expect("no test runs under the lock");
    records.sort_by_key(|(index, _)| *index);
    records.into_iter().map(|(_, record)| record).collect()
}

thread_local! {
    /// Where and why the test on this thread panicked; `None` outside of tests.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keep the place of a panic for the report, instead of printing it between other tests' lines.
fn remember_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let noted = PANIC.with(|text| {
            let mut text = text.borrow_mut();
            text.as_mut().map(|text| {
                *text =
                    info.location().map(|place| format!("panicked at {place}")).unwrap_or_default();
            })
        });
        if noted.is_none() {
            usual(info);
        }
    }));
}

fn judge(test: &Test) -> Outcome {
    PANIC.with(|text| *text.borrow_mut() = Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(|| (test.run)()));
    let place = PANIC.with(|text| text.borrow_mut().take()).unwrap_or_default();
    result.unwrap_or_else(|payload| Outcome::Failed(format!("{place}\n{}", message(&*payload))))
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// The failed tests' names, each skip reason with its count, and the closing line alone.
fn summary(records: &[Record<'_>]) -> (String, usize) {
    let mut text = String::new();
    let mut skips: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for record in records {
        match &record.outcome {
            Outcome::Passed => {}
            Outcome::Failed(_) => failures.push(record.name),
            Outcome::Skipped(reason) => *skips.entry(reason).or_default() += 1,
        }
    }
    for (reason, count) in &skips {
        writeln!(text, "skipped {count}: {reason}").expect("writing to a string cannot fail");
    }
    for name in &failures {
        writeln!(text, "failed: {name}").expect("writing to a string cannot fail");
    }
    let skipped: usize = skips.values().sum();
    let passed = records.len() - failures.len() - skipped;
    writeln!(text, "{passed} passed, {} failed, {skipped} skipped", failures.len())
        .expect("writing to a string cannot fail");
    (text, failures.len())
}

/// The ten slowest tests.
fn times(records: &[Record<'_>]) -> String {
    let mut sorted: Vec<_> = records.iter().collect();
    sorted.sort_by_key(|record| std::cmp::Reverse(record.time));
    let line =
        |record: &&Record<'_>| format!("{:8.2} s  {}\n", record.time.as_secs_f64(), record.name);
    sorted.iter().take(10).map(line).collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// The harness holds itself to its promises, as tests of the house.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a panic is a failure that names its place", || {
            let record = judge(&Test::new("x", || -> Outcome { panic!("the tea is {}", "cold") }));
            let Outcome::Failed(cause) = record else { panic!("{record:?}") };
            assert!(cause.contains("harness.rs:") && cause.contains("the tea is cold"), "{cause}");
        }),
        Test::new("equal skip reasons are counted together above the closing line", || {
            let record = |name, outcome| Record { name, outcome, time: Duration::ZERO };
            let skipped = || Outcome::Skipped("no tea".to_owned());
            let records = [
                record("a", Outcome::Passed),
                record("b", skipped()),
                record("c", failed("cold")),
                record("d", skipped()),
            ];
            let expected = "skipped 2: no tea\nfailed: c\n1 passed, 1 failed, 2 skipped\n";
            assert_eq!(summary(&records), (expected.to_owned(), 1));
        }),
        Test::new(
            "a filter keeps the names that contain it and an unknown option is refused",
            || {
                let parse =
                    |words: &[&str]| Options::parse(words.iter().map(|word| (*word).to_owned()));
                let options = parse(&["--nocapture", "tea", "cup"]).unwrap();
                assert!(options.wants("e2e: a cup") && !options.wants("e2e: a plate"));
                assert!(parse(&["--blend"]).unwrap_err().contains("`--blend`"));
            },
        ),
        Test::new("who judges the tests of a module is left out where any of them is", || {
            let chosen = |filters: &[&str]| {
                let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
                let options = Options { filters, ..Options::default() };
                let cup = Test::new("a cup", || {}).independent();
                let plate = Test::new("a plate", || {}).independent();
                let judge = Test::new("a judge", || {}).judging();
                let chosen = options.chosen("tea", vec![judge, cup, plate]);
                chosen.into_iter().map(|test| test.name).collect::<Vec<_>>()
            };
            assert_eq!(chosen(&["tea"]), ["tea: a judge", "tea: a cup", "tea: a plate"]);
            assert_eq!(chosen(&["judge", "plate"]), ["tea: a plate"]);
        }),
        Test::new("tests are reported in their own order whatever thread ran them", || {
            let tests: Vec<Test> = (0..20)
                .map(|index| Test::new(index.to_string(), || {}))
                .map(|test| if test.name.len() == 1 { test.independent() } else { test })
                .collect();
            let names: Vec<String> =
                run(&tests).iter().map(|record| record.name.to_owned()).collect();
            assert_eq!(names, (0..20).map(|index| index.to_string()).collect::<Vec<_>>());
        }),
    ]
}
