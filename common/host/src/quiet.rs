//! Catches panics without printing them, so that the caller can report an error of its own.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

use tracing::debug;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    /// The message of the last panic that was not printed.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
    /// Makes the error message to print before a panic that cannot be caught ends the program.
    static LAST_WORDS: RefCell<Option<Rc<dyn Fn() -> String>>> = const { RefCell::new(None) };
}

/// Exit code of `coord` for a failure on this machine.
const LOCAL_FAILURE: i32 = 6;

/// Rust's messages of panics that cannot be caught, for example a panic in a destructor while another panic unwinds.
const ABORTS: [&str; 2] = ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];

/// A value whose destructor may panic, for example a database with damaged pages. Such a panic is caught and not printed.
#[derive(Debug)]
pub struct Quiet<T>(Option<T>);

impl<T> Quiet<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Quiet<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Quiet<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        if let Err(panic) = quietly(|| drop(value)) {
            debug!(panic, "a destructor panicked; its resources stay as they are");
        }
    }
}

/// Runs `work` and returns its result, or the message of its panic, which is not printed.
pub fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| panic::set_hook(hook(panic::take_hook())));
    let before = IS_QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(before);
    done.map_err(|_| SAID.take())
}

/// As [`quietly`]. At a panic that cannot be caught, for example a second one while the first unwinds, the program prints `last_words`
/// and ends with the exit code of `coord` for a failure on this machine.
pub fn quietly_or<T>(last_words: impl Fn() -> String + 'static, work: impl FnOnce() -> T) -> Result<T, String> {
    let before = LAST_WORDS.replace(Some(Rc::new(last_words)));
    let done = quietly(work);
    LAST_WORDS.set(before);
    done
}

#[expect(clippy::print_stderr, reason = "the program ends here, so no caller can print it")]
fn end(last_words: &str) {
    eprintln!("error: {last_words}");
    std::process::exit(LOCAL_FAILURE);
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// A panic hook that calls `otherwise`, except on threads that are in [`quietly`].
fn hook(otherwise: Hook) -> Hook {
    Box::new(move |panic| {
        if IS_QUIET.get() && panic.payload_as_str().is_some_and(|words| ABORTS.contains(&words)) {
            let last_words = LAST_WORDS.with_borrow(Option::clone);
            last_words.map_or_else(|| otherwise(panic), |words| end(&words()));
        } else if IS_QUIET.get() {
            SAID.set(panic.to_string());
        } else {
            otherwise(panic);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Ends;

    impl Drop for Ends {
        fn drop(&mut self) {
            panic!("of this test: an end");
        }
    }

    /// Ends its process if `LOCKSTEP_TWO_PANICS` is set: the test below starts it so.
    #[test]
    fn two_panics_at_once() {
        if std::env::var_os("LOCKSTEP_TWO_PANICS").is_none() {
            return;
        }
        let _ = quietly_or(
            || "last words".to_owned(),
            || {
                let _ends = Ends;
                panic!("of this test: a page");
            },
        );
    }

    #[test]
    fn before_a_panic_that_cannot_be_caught_something_is_said() {
        let mut own = std::process::Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", "quiet::tests::two_panics_at_once", "--nocapture"]).env("LOCKSTEP_TWO_PANICS", "1");
        let output = own.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.trim_end()), (Some(LOCAL_FAILURE), "error: last words"));
    }

    #[test]
    fn a_panic_that_is_caught_is_not_printed_and_all_others_are() {
        let printed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&printed);
        assert_eq!(quietly(|| 1), Ok(1));
        // Counts printed panics, but only those of this test: others may run in parallel.
        panic::set_hook(hook(Box::new(move |panic| {
            let is_own = panic.payload_as_str().is_some_and(|words| words.starts_with("of this test"));
            count.fetch_add(usize::from(is_own), Ordering::Relaxed);
        })));
        let said = quietly(|| panic!("of this test: a page")).unwrap_err();
        assert!(said.contains("of this test: a page") && said.contains("quiet.rs"), "{said}");
        drop(Quiet::new(Ends));
        assert_eq!(printed.load(Ordering::Relaxed), 0);
        assert!(catch_unwind(|| panic!("of this test: a fault")).is_err());
        // A panic of another thread is printed, also while this thread is quiet.
        let other = quietly(|| std::thread::spawn(|| panic!("of this test: another")).join().is_err());
        assert_eq!((other, printed.load(Ordering::Relaxed)), (Ok(true), 2));
    }
}
