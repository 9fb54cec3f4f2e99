//! An upgrade, as the process that serves sees it: who asked, and whether changes have to wait.
//!
//! The process that is to follow begins with what is in force. As long as an upgrade is under way, whoever ordered it, a change would be undone by it.
#![forbid(unsafe_code)]

use std::sync::mpsc;

use serde_json::{Value, json};

use super::Refusal;

/// Where the outcome goes.
pub type Reply = mpsc::Sender<Result<Value, Refusal>>;

/// What is known of the upgrade that is under way; the default: there is none.
#[derive(Default)]
pub struct Upgrade {
    /// Who asked this process for it.
    asker: Option<Reply>,
    /// As the supervisor counts them, once it has said that it is under way.
    number: Option<u64>,
    /// The supervisor has not been told yet that changes wait.
    owes_word: bool,
}

impl Upgrade {
    /// Whether changes have to wait.
    pub fn is_under_way(&self) -> bool {
        self.asker.is_some() || self.number.is_some()
    }

    /// The supervisor has been asked.
    pub fn ask(&mut self, reply: Reply) {
        self.asker = Some(reply);
    }

    /// The supervisor has begun one.
    pub fn begin(&mut self, number: u64) {
        (self.number, self.owes_word) = (Some(number), true);
    }

    /// The number of the upgrade, once: every change that was asked for before it has been made.
    pub fn settle(&mut self) -> Option<u64> {
        self.number.filter(|_| std::mem::take(&mut self.owes_word))
    }

    /// What was asked for did not happen; `is_under_way`: because of another one, which goes on.
    pub fn fail(&mut self, reason: &str, is_under_way: bool) {
        let status = if is_under_way { 409 } else { 422 };
        self.answer(Err(Refusal::new(status, format!("nothing was changed: {reason}"))));
        if !is_under_way {
            self.number = None;
        }
    }

    /// The process `successor` serves.
    pub fn succeed(&mut self, successor: u32) {
        self.answer(Ok(json!({ "upgraded": true, "pid": successor, "former_pid": std::process::id() })));
        self.number = None;
    }

    fn answer(&mut self, outcome: Result<Value, Refusal>) {
        if let Some(asker) = self.asker.take() {
            // Whoever asked may have gone; the log has it.
            let _ = asker.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(upgrade: &mut Upgrade) -> mpsc::Receiver<Result<Value, Refusal>> {
        let (reply, outcome) = mpsc::channel();
        upgrade.ask(reply);
        outcome
    }

    #[test]
    fn who_comes_second_is_refused_and_the_first_upgrade_goes_on() {
        let mut upgrade = Upgrade::default();
        // A signal was faster than the operator.
        upgrade.begin(1);
        let outcome = asked(&mut upgrade);
        upgrade.fail("an upgrade is under way", true);
        assert_eq!(outcome.recv().expect("an answer").expect_err("a refusal").status, 409);
        assert!(upgrade.is_under_way());
        assert_eq!([upgrade.settle(), upgrade.settle()], [Some(1), None], "once");
        upgrade.fail("it ended", false);
        assert!(!upgrade.is_under_way());
    }

    #[test]
    fn changes_wait_from_the_question_to_the_outcome_also_with_a_supervisor_that_says_nothing_between() {
        let mut upgrade = Upgrade::default();
        for succeeds in [true, false] {
            let outcome = asked(&mut upgrade);
            assert!(upgrade.is_under_way() && upgrade.settle().is_none());
            if succeeds {
                upgrade.succeed(7)
            } else {
                upgrade.fail("it ended", false)
            }
            assert_eq!(outcome.recv().expect("an answer").map_err(|refusal| refusal.status).is_ok(), succeeds);
            assert!(!upgrade.is_under_way());
        }
    }
}
