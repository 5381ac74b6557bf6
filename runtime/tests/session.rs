//! Conversations with the toy artifact.

mod toy;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use half::bf16;
use sail_ir::Help;
use sail_ir::help::report;
use sail_runtime::image::{self, Rgb};
use sail_runtime::sample::Sampling;
use sail_runtime::taps::Pattern;
use sail_runtime::{
    Answer, DeviceKind, End, Event, Input, Options, Picture, Program, Request, RunError, Session,
};

struct Toy {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn toy() -> Toy {
    let folder = tempfile::tempdir().unwrap();
    let path = toy::write(folder.path());
    Toy { _folder: folder, path }
}

fn open(toy: &Toy, options: Options) -> Program {
    Program::open(&toy.path, &Options { threads: Some(2), ..options }).unwrap()
}

fn ask(session: &mut Session, request: &Request) -> Result<Answer, RunError> {
    session.ask(request, &mut |_| {})
}

/// What the toy answers after values that sum up to `sum`.
fn expected(mut sum: u64, count: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = (sum % u64::from(toy::VOCABULARY)) as u32;
        ids.push(id);
        sum += u64::from(id);
        if id == toy::TURN_END {
            break;
        }
    }
    ids
}

fn sum(ids: &[u32]) -> u64 {
    ids.iter().map(|id| u64::from(*id)).sum()
}

fn picture(seed: u8, width: u32, height: u32) -> Rgb {
    let bytes =
        (0..3 * width * height).map(|index| seed.wrapping_mul(31).wrapping_add(index as u8));
    Rgb::new(width, height, bytes.collect()).unwrap()
}

/// What a picture's places count for instead of their ids.
fn picture_sum(program: &Program, picture: &Rgb) -> (u64, usize) {
    let tiles = image::tiles(picture, &program.manifest().tiling).unwrap();
    let mut sum = 0;
    for tile in 0..tiles.count() {
        let mut values = vec![bf16::ZERO; tiles.tile_values()];
        tiles.pixels_bf16(tile..tile + 1, &mut values);
        sum += u64::from(values[0].to_bits());
    }
    (sum, tiles.count())
}

#[test]
fn an_answer_is_the_same_on_any_number_of_threads_and_streams_what_it_returns() {
    let toy = toy();
    let mut answers = Vec::new();
    for threads in [1, 2, 5] {
        let options = Options { threads: Some(threads), ..Options::default() };
        let program = Program::open(&toy.path, &options).unwrap();
        let mut session = Session::new(&program).unwrap();
        let mut streamed = String::new();
        let request = Request::new(&program, "What is this?");
        let answer = session.ask(&request, &mut |event| {
            if let Event::Text(text) = event {
                streamed.push_str(text);
            }
        });
        let answer = answer.unwrap();
        assert_eq!(answer.text, streamed);
        assert_eq!(answer.ids, expected(sum(&answer.prompt), 24));
        answers.push((answer.ids, answer.text, answer.end));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn pictures_are_seen_at_their_places_over_several_turns() {
    let toy = toy();
    let program = open(&toy, Options::default());
    let mut session = Session::new(&program).unwrap();
    let (first, second) = (picture(1, 2, 2), picture(2, 9, 5));
    let mut all = 0;
    let mut answered = Vec::new();
    for turn in 0..3_u8 {
        let third = picture(turn, 30, 10);
        let pictures = [&first, &second, &third].map(|pixels| Picture::pixels("p", pixels));
        let pictures = &pictures[..usize::from(turn) + 1];
        let mut request = Request::new(&program, "Which one?").with_pictures(pictures);
        request.max_tokens = 5;
        let answer = ask(&mut session, &request).unwrap();
        let places = answer.prompt.iter().filter(|id| **id == toy::IMAGE_PLACE).count();
        let plain = answer.prompt.iter().filter(|id| **id != toy::IMAGE_PLACE);
        all += plain.map(|id| u64::from(*id)).sum::<u64>();
        let mut tiles = 0;
        for pixels in [&first, &second, &third].into_iter().take(usize::from(turn) + 1) {
            let (sum, count) = picture_sum(&program, pixels);
            all += sum;
            tiles += count;
        }
        assert_eq!(places, tiles);
        assert_eq!(answer.timings.tiles as usize, tiles);
        // The answer before is in the cache but for its last token, which the new prompt repeats.
        all += sum(&answered);
        assert_eq!(answer.ids, expected(all, 5), "turn {turn}");
        answered = answer.ids[..answer.ids.len() - 1].to_vec();
    }
}

#[test]
fn an_answer_ends_for_each_of_its_reasons() {
    let toy = toy();
    let program = open(&toy, Options { context: Some(128), ..Options::default() });
    let answer = |change: Request| {
        let mut session = Session::new(&program).unwrap();
        let answer = ask(&mut session, &change).unwrap();
        (answer, session.used())
    };
    let ids = |ids| Request { input: Input::Ids(ids), ..Request::new(&program, "") };
    let (three, used) = answer(Request { max_tokens: 3, ..ids(&[1, 0]) });
    assert_eq!((three.ids, three.end, used), (vec![1, 2, 4], End::Length, 4));
    let (end, used) = answer(ids(&[200, 57]));
    assert_eq!((end.ids, end.end), (vec![toy::TURN_END], End::Token(toy::TURN_END)));
    assert_eq!((end.text.as_str(), used), ("", 2));
    // The bytes 33 and 66 are `!` and `B`.
    let stop = ["B".to_owned()];
    let (stopped, _) = answer(Request { stop: &stop, ..ids(&[33]) });
    assert_eq!((stopped.text.as_str(), stopped.end), ("!", End::Stop(0)));
    assert_eq!(stopped.ids, [33, 66]);
    let (full, used) = answer(ids(&[0; 120]));
    assert_eq!((full.ids.len(), full.end, used), (9, End::Context, 128));
    let (none, used) = answer(Request { max_tokens: 0, ..ids(&[0; 120]) });
    assert_eq!((none.ids.len(), none.end, used), (0, End::Length, 120));
}

#[test]
fn a_question_that_does_not_fit_is_refused_before_any_work_and_changes_nothing() {
    let toy = toy();
    let program = open(&toy, Options { context: Some(256), ..Options::default() });
    let mut session = Session::new(&program).unwrap();
    session.set_system(Some("short".to_owned()));
    let first = ask(&mut session, &Request::new(&program, "hi")).unwrap();
    let used = session.used();
    let pixels = picture(3, 200, 10);
    let pictures = vec![Picture::pixels("wide.png", &pixels); 40];
    let request = Request::new(&program, "too many").with_pictures(&pictures);
    let mut events = 0;
    let error = session.ask(&request, &mut |_| events += 1).unwrap_err();
    assert_eq!((error.exit_code(), events, session.used()), (3, 0, used));
    let text = report(&error);
    assert!(text.contains("280 image tiles take 280 and the text takes"), "{text}");
    assert!(text.contains(&format!("the conversation has taken {used}")), "{text}");
    assert!(text.contains("`--context 512` makes room"), "{text}");
    // The next question is answered as if the one refused had never been asked.
    let answer = ask(&mut session, &Request::new(&program, "and?")).unwrap();
    let before = sum(&first.prompt) + sum(&first.ids[..first.ids.len() - 1]);
    assert_eq!(answer.ids, expected(before + sum(&answer.prompt), 24));
}

#[test]
fn requests_that_make_no_sense_are_refused_in_their_own_words() {
    let toy = toy();
    let program = open(&toy, Options::default());
    let refusal = |request: Request| {
        let mut session = Session::new(&program).unwrap();
        let error = ask(&mut session, &request).unwrap_err();
        format!("{} {}", error.exit_code(), report(&error))
    };
    let check = |request, expected: &[&str]| {
        let text = refusal(request);
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    };
    let plain = || Request::new(&program, "hi");
    let ids = |ids| Request { input: Input::Ids(ids), ..plain() };
    let broken = [Picture::encoded("cat.png", b"")];
    check(plain().with_pictures(&broken), &["3 ", "SC0501", "in `cat.png`"]);
    check(ids(&[]), &["3 ", "no token ids"]);
    check(ids(&[320]), &["3 ", "token 320", "320"]);
    check(ids(&[toy::IMAGE_PLACE]), &["3 ", "has 1 places", "take 0"]);
    let cold = Sampling { temperature: -1.0, ..Sampling::default() };
    check(Request { sampling: cold, ..plain() }, &["2 ", "temperature"]);
    let empty = [String::new()];
    check(Request { stop: &empty, ..plain() }, &["2 ", "stop string is empty"]);
}

#[test]
fn slots_go_back_when_a_conversation_ends() {
    let toy = toy();
    let program = open(&toy, Options { slots: 2, ..Options::default() });
    let first = Session::new(&program).unwrap();
    let _second = Session::new(&program).unwrap();
    assert!(matches!(Session::new(&program), Err(RunError::Busy)));
    drop(first);
    assert!(Session::new(&program).is_ok());
}

#[test]
fn conversations_in_several_slots_do_not_hear_each_other() {
    let toy = toy();
    let program = open(&toy, Options { slots: 2, ..Options::default() });
    let mut alone = Vec::new();
    for text in ["one", "two"] {
        let mut session = Session::new(&program).unwrap();
        for question in [text, "again", "and again"] {
            alone.push(ask(&mut session, &Request::new(&program, question)).unwrap().ids);
        }
    }
    let mut sessions = [Session::new(&program).unwrap(), Session::new(&program).unwrap()];
    let mut beside = [Vec::new(), Vec::new()];
    for turn in 0..3 {
        for (index, text) in ["one", "two"].into_iter().enumerate() {
            let question = [text, "again", "and again"][turn];
            let request = Request::new(&program, question);
            beside[index].push(ask(&mut sessions[index], &request).unwrap().ids);
        }
    }
    assert_eq!(alone, beside.concat());
}

#[test]
fn sampling_by_a_seed_is_repeatable() {
    let toy = toy();
    let program = open(&toy, Options::default());
    let draw = |seed| {
        let mut session = Session::new(&program).unwrap();
        let mut request = Request::new(&program, "hi");
        request.sampling = Sampling { temperature: 5.0, seed, ..Sampling::default() };
        ask(&mut session, &request).unwrap().ids
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn an_interrupted_answer_leaves_the_conversation_as_it_was() {
    let toy = toy();
    let program = open(&toy, Options::default());
    let mut session = Session::new(&program).unwrap();
    let stop = AtomicBool::new(false);
    let mut request = Request::new(&program, "hi");
    request.interrupt = &stop;
    request.max_tokens = 400;
    request.eos = &[];
    let mut pieces = 0;
    let result = session.ask(&request, &mut |event| {
        if matches!(event, Event::Text(_)) {
            pieces += 1;
            stop.store(pieces == 3, Ordering::SeqCst);
        }
    });
    // A call that is finished before anybody looks is finished; the wish is then still there.
    match result {
        Err(error) => assert_eq!((error.exit_code(), session.used()), (130, 0)),
        Ok(answer) => assert!(answer.ids.len() > 3),
    }
}

#[test]
fn damaged_weights_are_found_before_an_answer_is_returned() {
    use std::os::unix::fs::FileExt;
    let toy = toy();
    let offset = open(&toy, Options::default()).artifact().weights().offset;
    let file = std::fs::OpenOptions::new().write(true).open(&toy.path).unwrap();
    file.write_all_at(&[1], offset + (3 << 20) - 1).unwrap();
    let program = open(&toy, Options::default());
    let mut session = Session::new(&program).unwrap();
    let error = ask(&mut session, &Request::new(&program, "hi")).unwrap_err();
    assert_eq!(error.exit_code(), 6);
}

#[test]
fn the_null_device_goes_through_a_whole_conversation() {
    let toy = toy();
    let program = open(&toy, Options { device: DeviceKind::Null, ..Options::default() });
    let mut session = Session::new(&program).unwrap();
    let pixels = picture(3, 20, 10);
    let pictures = [Picture::pixels("p", &pixels)];
    for _ in 0..3 {
        let request = Request::new(&program, "hi").with_pictures(&pictures);
        assert_eq!(ask(&mut session, &request).unwrap().ids, [0; 24]);
    }
}

#[test]
fn taps_are_of_the_prompt_that_would_be_asked() {
    let toy = toy();
    let program = open(&toy, Options { taps: true, ..Options::default() });
    let mut session = Session::new(&program).unwrap();
    let pixels = picture(3, 20, 10);
    let pictures = [Picture::pixels("p", &pixels)];
    let request = Request::new(&program, "hi").with_pictures(&pictures);
    let (tensors, ids) = session.inside(&request, &Pattern::new("l*")).unwrap();
    let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["logits", "layers.0"]);
    assert!(tensors.iter().all(|tensor| tensor.shape[0] == ids.len() as u64));
    let answer = ask(&mut session, &request).unwrap();
    assert_eq!(answer.prompt, ids);
    let last = tensors[0].values.chunks(320).next_back().unwrap();
    assert_eq!(last.iter().position(|value| *value == 1.0), Some(answer.ids[0] as usize));
    assert!(matches!(session.inside(&request, &Pattern::new("*")), Err(RunError::Taps)));
}
