//! Coders of content: a worker keeps those that are done for the next answers.
//! At most [`MAX_LENT`] code at once; whoever finds none left sends what it has as it is.
//! The walk goes back to `l7/compress.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::config::model::Algorithm;
use crate::http::coding::{Broken, Coder, Then};

/// Answers of one worker that are coded at once: each takes up to 1 MiB, mostly a third of that.
const MAX_LENT: usize = 256;

/// Coders that wait for the next answer.
const MAX_FREE: usize = 16;

/// What a coder is made for.
type Kind = (Algorithm, u8);

/// The coders of one worker.
#[derive(Debug, Default)]
pub struct Coders {
    free: RefCell<Vec<(Kind, Coder)>>,
    lent: Cell<usize>,
    /// Coded bytes on their way out; borrowed within one poll only.
    pub out: RefCell<Vec<u8>>,
}

/// A coder for one message.
#[derive(Debug)]
pub struct LentCoder {
    kind: Kind,
    coder: Option<Coder>,
    home: Rc<Coders>,
}

impl Coders {
    /// A coder of this level; `None` when [`MAX_LENT`] are at work.
    pub fn lend(self: &Rc<Self>, algorithm: Algorithm, level: u8) -> Option<LentCoder> {
        if self.lent.get() == MAX_LENT {
            return None;
        }
        let kind = (algorithm, level);
        let free = &mut *self.free.borrow_mut();
        let kept = free.iter().rposition(|(known, _)| *known == kind);
        let coder = match kept {
            Some(place) => free.swap_remove(place).1,
            None => Coder::new(algorithm, level)?,
        };
        self.lent.set(self.lent.get() + 1);
        Some(LentCoder {
            kind,
            coder: Some(coder),
            home: self.clone(),
        })
    }
}

impl LentCoder {
    /// Codes `bytes` and appends what comes out of it.
    ///
    /// # Errors
    /// [`Broken`]; the message cannot be ended any more.
    pub fn code(&mut self, bytes: &[u8], then: Then, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.coder.as_mut().ok_or(Broken)?.code(bytes, then, out)
    }
}

impl Drop for LentCoder {
    fn drop(&mut self) {
        self.home.lent.set(self.home.lent.get() - 1);
        let free = &mut *self.home.free.borrow_mut();
        if let Some(mut coder) = self.coder.take()
            && coder.reset()
        {
            if free.len() == MAX_FREE {
                // The one that waited longest is of a kind that nobody asks for.
                free.remove(0);
            }
            free.push((self.kind, coder));
        }
    }
}
