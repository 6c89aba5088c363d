//! Panics that are caught and told in other words: nothing of them is printed.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use tracing::debug;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    /// What the hook was told of the last panic while it was quiet.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

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

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// `otherwise`, but for threads that are quiet.
fn hook(otherwise: Hook) -> Hook {
    Box::new(move |panic| {
        if IS_QUIET.get() {
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
