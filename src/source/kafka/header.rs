//! The headers of a record, also those that rdkafka cannot read.
//!
//! It panics on a name that is not UTF-8. One producer's bad header must not end everybody's stream, nor fill the log with
//! panics that are no defect.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use rdkafka::message::{BorrowedHeaders, Headers};

use crate::source::HeadersBuilder;

/// What stands for the name of a header that cannot be read. Its value cannot either.
const UNREADABLE: &[u8] = b"(name is not UTF-8)";

thread_local! {
    /// Whether this thread is inside of rdkafka's call that may panic.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Puts the headers of a record behind each other.
pub(super) fn pack_headers(headers: &BorrowedHeaders, packed: &mut HeadersBuilder) {
    for index in 0..headers.count() {
        match quietly(|| headers.get(index)) {
            Some(header) => packed.push(header.key.as_bytes(), header.value),
            None => packed.push(UNREADABLE, None),
        }
    }
}

/// What `read` gives; `None` if it panics, of which nobody is told.
fn quietly<T>(read: impl FnOnce() -> T) -> Option<T> {
    hush();
    READING.set(true);
    let read = catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    read.ok()
}

/// Has the panic hook called for all panics but those.
fn hush() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(leave_out_reading);
}

fn leave_out_reading() {
    let hook = take_hook();
    set_hook(Box::new(move |panic| {
        if !READING.get() {
            hook(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn only_a_panic_in_reading_is_kept_quiet_and_all_others_are_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (all, listener) = (take_hook(), Arc::clone(&told));
        set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>().copied();
            // Other tests may panic meanwhile.
            match text.filter(|text| text.starts_with("told")) {
                Some(text) => listener.lock().unwrap().push(text),
                None => all(panic),
            }
        }));
        leave_out_reading();
        assert!(catch_unwind(|| panic!("told before")).is_err());
        assert_eq!(quietly(|| 7), Some(7));
        assert_eq!(quietly(|| -> u8 { panic!("told to nobody") }), None);
        assert!(std::thread::spawn(|| panic!("told by another thread")).join().is_err());
        assert!(catch_unwind(|| panic!("told behind")).is_err());
        assert_eq!(*told.lock().unwrap(), ["told before", "told by another thread", "told behind"]);
    }
}
