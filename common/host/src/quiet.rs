//! Panics that are caught and told in other words: nothing of them is printed.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

use tracing::debug;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    /// What the hook was told of the last panic while it was quiet.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
    /// What the program's last words are.
    static LAST_WORDS: RefCell<Option<Rc<dyn Fn() -> String>>> = const { RefCell::new(None) };
}

/// Exit code of `coord` for what is wrong on this machine.
const LOCAL_FAILURE: i32 = 6;

/// How Rust calls panics that end the program: one out of the end of a value while another one is on its way, for one.
const ABORTS: [&str; 2] = ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];

/// A value whose end may panic, as that of a database with damaged pages does: nothing of it is printed, and nothing ends by it.
#[derive(Debug)]
pub struct Quiet<T>(Option<T>);

impl<T> Quiet<T> {
    /// Holds `value`.
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
            debug!(panic, "what could not be ended in order is left as it is");
        }
    }
}

/// What `work` gives, or the words of its panic, which this thread does not print meanwhile.
pub fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| panic::set_hook(hook(panic::take_hook())));
    let before = IS_QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(before);
    done.map_err(|_| SAID.take())
}

/// As [`quietly`]; at a panic that cannot be caught, one while another is on its way, the program ends with `last_words` and the code of
/// `coord` for what is wrong on this machine.
pub fn quietly_or<T>(last_words: impl Fn() -> String + 'static, work: impl FnOnce() -> T) -> Result<T, String> {
    let before = LAST_WORDS.replace(Some(Rc::new(last_words)));
    let done = quietly(work);
    LAST_WORDS.set(before);
    done
}

#[expect(clippy::print_stderr, reason = "nobody is left who could print it")]
fn end(last_words: &str) {
    eprintln!("error: {last_words}");
    std::process::exit(LOCAL_FAILURE);
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// `otherwise`, but for threads that are quiet.
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

    /// Ends its process if a variable says so.
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
        // As whoever prints. Of this test's own: others may run beside it.
        panic::set_hook(hook(Box::new(move |panic| {
            let is_own = panic.payload_as_str().is_some_and(|words| words.starts_with("of this test"));
            count.fetch_add(usize::from(is_own), Ordering::Relaxed);
        })));
        let said = quietly(|| panic!("of this test: a page")).unwrap_err();
        assert!(said.contains("of this test: a page") && said.contains("quiet.rs"), "{said}");
        drop(Quiet::new(Ends));
        assert_eq!(printed.load(Ordering::Relaxed), 0);
        assert!(catch_unwind(|| panic!("of this test: a fault")).is_err());
        // Also of another thread, while this one is quiet.
        let other = quietly(|| std::thread::spawn(|| panic!("of this test: another")).join().is_err());
        assert_eq!((other, printed.load(Ordering::Relaxed)), (Ok(true), 2));
    }
}
