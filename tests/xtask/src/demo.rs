//! Compiles the small model for this CPU and asks it three questions about a picture.

use std::fs;
use std::time::Instant;

use crate::packages;
use crate::run::{Result, binaries, command, output, root};

const MODEL: &str = "models/sail-vl2-tiny";
const ARTIFACT: &str = "target/sail-vl2-tiny.sail";
const QUESTIONS: usize = 3;

/// The whole road on the model that is in the repository.
///
/// Refuses when its weights are not there.
pub fn demo() -> Result<()> {
    packages::install()?;
    if !root().join(MODEL).join("model.safetensors").is_file() {
        return Err(format!(
            "`{MODEL}/model.safetensors` is missing\n\nhint: fetch the whole repository"
        ));
    }
    let samples = root().join(MODEL).join("samples/questions.json");
    let text =
        fs::read_to_string(&samples).map_err(|error| format!("{}: {error}", samples.display()))?;
    let asked = questions(&text);
    let picture = asked.first().map(|sample| format!("{MODEL}/samples/{}", sample.picture));
    let picture = picture.ok_or_else(|| format!("{} asks nothing", samples.display()))?;

    println!("building sailc and sail");
    let folder = binaries()?;
    let (_, seconds) =
        timed(&folder.join("sailc"), &["compile", MODEL, "--target", "host", "-o", ARTIFACT])?;
    println!("compiled {MODEL} for this CPU into {ARTIFACT} in {seconds:.2} s");
    println!("picture: {picture}");
    for Sample { question, answer, .. } in asked {
        let arguments = ["run", ARTIFACT, "--image", &picture, "--prompt", &question];
        let (said, seconds) = timed(&folder.join("sail"), &arguments)?;
        println!(
            "  {question}\n    {}   ({seconds:.2} s; the scene was drawn as: {answer})",
            said.trim()
        );
    }
    Ok(())
}

/// What a program printed, and the seconds from its start to its end.
fn timed(program: &std::path::Path, arguments: &[&str]) -> Result<(String, f64)> {
    let start = Instant::now();
    let said = output(command(program, arguments).stderr(std::process::Stdio::inherit()))?;
    Ok((said, start.elapsed().as_secs_f64()))
}

/// A question about a picture, and what the picture was drawn from.
#[derive(Debug, PartialEq, Eq)]
struct Sample {
    picture: String,
    question: String,
    answer: String,
}

/// The first questions about the first picture that has [`QUESTIONS`] of them.
///
/// Reads the one form that the recipe writes: an object a question, a field a line.
fn questions(json: &str) -> Vec<Sample> {
    let all: Vec<Sample> = json.split('}').filter_map(sample).collect();
    let enough =
        |picture: &str| all.iter().filter(|other| other.picture == picture).count() >= QUESTIONS;
    let Some(chosen) =
        all.iter().map(|sample| sample.picture.clone()).find(|picture| enough(picture))
    else {
        return Vec::new();
    };
    all.into_iter().filter(|sample| sample.picture == chosen).take(QUESTIONS).collect()
}

fn sample(object: &str) -> Option<Sample> {
    let field = |name: &str| {
        let line =
            object.lines().find_map(|line| line.trim().strip_prefix(&format!("\"{name}\": \"")))?;
        Some(line.trim_end_matches(',').strip_suffix('"')?.to_owned())
    };
    Some(Sample {
        picture: field("picture")?,
        question: field("question")?,
        answer: field("answer")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_asks_about_the_first_picture_with_enough_questions() {
        let object = |picture: &str, question: &str| {
            format!(
                "\n {{\n  \"picture\": \"{picture}\",\n  \"question\": \"{question}\",\n  \"answer\": \"one\"\n }}"
            )
        };
        let rows = [("a.png", "1"), ("b.png", "2"), ("b.png", "3"), ("b.png", "4"), ("b.png", "5")];
        let json = rows.map(|(picture, question)| object(picture, question)).join(",");
        let asked = questions(&format!("[{json}\n]"));
        let words: Vec<_> = asked.iter().map(|sample| sample.question.as_str()).collect();
        assert_eq!(words, ["2", "3", "4"]);
        assert!(questions("[]").is_empty());
    }
}
