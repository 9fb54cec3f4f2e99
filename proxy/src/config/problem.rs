//! What is wrong with a configuration, in the form an operator reads: what, file:line:column, likely cause, what to do.
//!
//! Owns the text form of a problem and the collection that reports several at once, in the order of the file. Problems are
//! text because they are shown once and never matched on. Must not know the schema.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// One thing that is wrong, or a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, in one sentence without a full stop.
    pub what: String,
    /// Where: the file, and the place in it when there is one.
    pub place: Option<Box<Place>>,
    /// The likely cause, when it is not the same sentence as `what`.
    pub cause: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

/// A place in a file, with the line that stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As the operator named it.
    pub file: String,
    /// From 1; 0 when the problem is the file as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line as it stands in the file, before `${…}` is filled in.
    pub source: String,
    /// Characters to underline.
    pub width: usize,
}

impl Problem {
    /// A problem without a place: of the command line, for example.
    pub fn new(what: impl Into<String>) -> Problem {
        Problem { what: what.into(), place: None, cause: None, help: None }
    }

    /// The same with its likely cause.
    pub fn cause(mut self, cause: impl Into<String>) -> Problem {
        self.cause = Some(cause.into());
        self
    }

    /// The same with what to do.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// The same with "did you mean", when there is something close.
    pub fn suggest(self, close: Option<&str>) -> Problem {
        match close {
            Some(close) => self.help(format!("did you mean `{close}`?")),
            None => self,
        }
    }

    /// The same at bytes `span` of `text`, which is the content of `file`.
    pub fn at(mut self, file: &str, text: &str, span: &Range<usize>) -> Problem {
        self.place = Some(Box::new(Place::new(file, text, span)));
        self
    }

    /// The same about `file` as a whole.
    pub fn in_file(mut self, file: &Path) -> Problem {
        self.place = Some(Box::new(Place { file: file.display().to_string(), line: 0, column: 0, source: String::new(), width: 0 }));
        self
    }

    fn order(&self) -> (usize, usize) {
        self.place.as_ref().map_or((0, 0), |place| (place.line, place.column))
    }
}

impl Place {
    fn new(file: &str, text: &str, span: &Range<usize>) -> Place {
        let start = floor_char_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor_char_boundary(text, span.end).clamp(start, line_end.max(start));
        Place {
            file: file.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            source: text[line_start..line_end].trim_end().to_owned(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

/// `{:#}` shows the line that stands at the place, for whoever sits before the file. A log keeps what it is given, and the line may hold a secret.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut margin = 1;
        match self.place.as_deref() {
            None => write!(f, "{}", self.what)?,
            Some(place) if place.line == 0 => write!(f, "{}: {}", place.file, self.what)?,
            Some(place) => {
                let Place { file, line, column, source, width } = place;
                margin = line.to_string().len();
                write!(f, "{file}:{line}:{column}: {}", self.what)?;
                if f.alternate() {
                    write!(f, "\n {:margin$} |\n {line} | {source}\n {:margin$} | {:indent$}{}", "", "", "", "^".repeat(*width), indent = column - 1)?;
                }
            }
        }
        for (label, text) in [("cause", &self.cause), ("help", &self.help)] {
            if let Some(text) = text {
                write!(f, "\n {:margin$} = {label}: {text}", "")?;
            }
        }
        Ok(())
    }
}

/// Why a configuration was refused: at least one problem, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// The problems in the order of the file.
    pub(super) fn new(mut problems: Vec<Problem>) -> ConfigErrors {
        debug_assert!(!problems.is_empty());
        sort(&mut problems);
        ConfigErrors { problems }
    }
}

impl From<Problem> for ConfigErrors {
    fn from(problem: Problem) -> ConfigErrors {
        ConfigErrors { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n\n" })?;
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Into the order of the file, each problem once.
pub(super) fn sort(problems: &mut Vec<Problem>) {
    problems.sort_by_key(Problem::order);
    problems.dedup();
}

/// The candidate that `word` was probably meant to be: at most a third of its letters differ.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (word.len().max(candidate.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_what_where_cause_and_help() {
        let text = "a = 1\nbé = 2 # x\n";
        let problem = Problem::new("no such thing").at("f.toml", text, &(6..9)).cause("why").help("do this");
        assert_eq!(problem.to_string(), "f.toml:2:1: no such thing\n   = cause: why\n   = help: do this", "nothing of the line");
        assert_eq!(format!("{problem:#}"), "f.toml:2:1: no such thing\n   |\n 2 | bé = 2 # x\n   | ^^\n   = cause: why\n   = help: do this");
        assert_eq!(Problem::new("x").in_file(Path::new("f.toml")).to_string(), "f.toml: x");
        assert_eq!(Problem::new("x").help("y").to_string(), "x\n   = help: y");
    }

    #[test]
    fn a_span_past_the_end_or_over_lines_stays_in_its_line() {
        for (span, line, width) in [(100..200, 2, 1), (0..5, 1, 1), (1..2, 1, 1)] {
            let problem = Problem::new("x").at("f", "a\n", &span);
            let place = problem.place.expect("set by at");
            assert_eq!((place.line, place.width), (line, width), "{span:?}");
        }
    }

    #[test]
    fn suggestions_are_close_or_absent() {
        assert_eq!(closest("adress", ["name", "address", "backlog"]), Some("address"));
        assert_eq!(closest("round_robin", ["round-robin"]), Some("round-robin"));
        assert_eq!(closest("xyz", ["name", "address"]), None);
    }
}
