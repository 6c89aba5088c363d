//! Panics that are caught and told in other words: nothing of them is printed.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    /// What the hook was told of the last panic while it was quiet.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What `work` gives, or the words of its panic, which this thread does not print meanwhile.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
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

    use super::super::StoreError;
    use super::*;

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
        let path = std::path::Path::new("state.redb");
        let damaged = crate::store::guarded(path, || panic!("of this test: a page")) as Result<(), StoreError>;
        assert!(matches!(damaged, Err(StoreError::Damaged { .. })));
        assert_eq!(printed.load(Ordering::Relaxed), 0);
        assert!(catch_unwind(|| panic!("of this test: a fault")).is_err());
        // Also of another thread, while this one is quiet.
        let other = quietly(|| std::thread::spawn(|| panic!("of this test: another")).join().is_err());
        assert_eq!((other, printed.load(Ordering::Relaxed)), (Ok(true), 2));
    }
}
