//! What to do about a failure. The table from SQLSTATE, lost connections and faults of the client to a decision; the
//! only one.

use crate::cause::Cause;

/// What a caller does about an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same work can succeed later: drop the connection, wait, connect again, do it again.
    Transient,
    /// The database refuses a value in this batch. The same batch will fail again; its other rows would not.
    Data,
    /// An operator must act: settings, rights or the schema are wrong. The text says the fix.
    Configuration,
    /// A fault of this program, or something nobody foresaw. Stop; do not try again and skip nothing.
    Fatal,
}

/// Decides by all that is known. That there is no SQLSTATE does not mean that the connection was lost: what the client
/// itself finds wrong, it finds wrong again.
pub(crate) fn classify(cause: &Cause) -> Class {
    match cause {
        // A database that takes no connections for now refuses with the code of a wrong state, and hangs up.
        Cause::Server(error) if error.ended && error.code.code() == "55000" => Class::Transient,
        Cause::Server(error) => classify_sqlstate(error.code.code()),
        Cause::Closed(_) | Cause::Io { .. } | Cause::Timeout(_) | Cause::ReadOnly => Class::Transient,
        Cause::Tls { .. } | Cause::Settings(_) => Class::Configuration,
        Cause::Program(_) => Class::Fatal,
    }
}

/// Decides by SQLSTATE alone. An unknown code is [`Class::Fatal`].
pub fn classify_sqlstate(code: &str) -> Class {
    match code {
        // The server, or a server of this name, is expected back.
        "57P01" | "57P02" | "57P03" | "57P05" => Class::Transient,
        // Lost a race for locks or for a serial order.
        "40001" | "40003" | "40P01" | "55P03" => Class::Transient,
        // 57014: the server's statement_timeout, or somebody who cancels; whoever builds an index has no timeout, and knows
        // which. A COPY that is abandoned tells another error. 25P03: we were too slow between statements. 25P04: in all.
        "57014" | "25P03" | "25P04" => Class::Transient,
        // Read-only: a failover left us with a standby. A fresh connection, which takes no standby, finds the primary.
        "25006" => Class::Transient,
        // A follow-up of an earlier failure in the transaction; a fresh transaction has none.
        "25P02" => Class::Transient,
        "58030" => Class::Transient,
        // Two rows of one statement have one key, perhaps because a trigger rewrites it. Each alone can be written.
        "21000" => Class::Data,
        // `raise exception` in a trigger: somebody's rule refuses the row.
        "P0001" => Class::Data,
        _ => match code.get(..2) {
            Some("08" | "53") => Class::Transient,
            Some("22" | "23" | "54") => Class::Data,
            Some("0A" | "28" | "3D" | "3F" | "42") => Class::Configuration,
            _ => Class::Fatal,
        },
    }
}

/// What a code means, in plain words. No text from the server, so no value of a row.
pub(crate) fn meaning(code: &str) -> &'static str {
    match code {
        "0A000" => "the server does not support what was asked",
        "21000" => "two rows of one statement have the same key",
        "22000" => "a value does not fit its column; for a vector, its dimension",
        "22001" => "a text is too long for its column",
        "22003" => "a number is out of range",
        "22007" | "22008" => "a date or time is out of range",
        "22021" => "a text is not valid UTF-8 or holds a NUL character",
        "22P02" | "22P03" => "a value has the wrong form",
        "22P05" => "a text holds a character the database cannot keep",
        "23502" => "a column that must not be null got a null",
        "23503" => "a foreign key has no match",
        "23505" => "another unique key holds this value already",
        "23514" => "a check constraint refuses a row",
        "25006" => "the server is read-only",
        "25P02" => "an earlier statement of the transaction failed",
        "25P03" => "the transaction was idle for too long and the server ended it",
        "25P04" => {
            "the transaction took longer than the server's transaction_timeout, and the server ended it"
        }
        "26000" => "the server does not know the prepared statement",
        "28000" => "the server does not let this role in from here",
        "28P01" => "the password is wrong",
        "3D000" => "the database does not exist",
        "3F000" => "the schema does not exist",
        "40001" => "another transaction changed the same rows",
        "40P01" => "a deadlock was broken",
        "42501" => "the role lacks a right",
        "42703" => "a column does not exist",
        "42704" => "a type or object does not exist",
        "42883" => "a function or operator does not exist",
        "42P01" => "a table does not exist",
        "42P10" => "no unique key fits the conflict target",
        "53100" => "the server's disk is full",
        "53200" => "the server is out of memory",
        "53300" => "the server has no connection left",
        "55P03" => "a lock was not free in time",
        "57014" => "the statement took too long and was cancelled",
        "57P01" => "the server is shutting down, or an administrator ended the connection",
        "57P02" => "the server crashed and is restarting",
        "57P03" => "the server is not ready yet",
        "57P05" => "the server ended the session because it was idle",
        "58030" => "the server could not read or write a file",
        "58P01" => "a file is missing on the server",
        "P0001" => "a trigger or function of the database refuses a row",
        _ => match code.get(..2) {
            Some("08") => "the connection failed",
            Some("22") => "a value is not valid for its column",
            Some("23") => "a constraint refuses a row",
            Some("28") => "the server does not let this role in",
            Some("42") => "the schema does not fit the statement, or a right is missing",
            Some("53") => "the server is short of resources",
            Some("54") => "a row exceeds a limit of the server",
            Some("XX") => "the server reports an internal error",
            _ => "the server reports an error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::ServerError;

    #[test]
    fn a_database_that_takes_no_connections_is_transient_and_any_other_wrong_state_fatal() {
        let class = |code, ended| classify(&Cause::Server(Box::new(ServerError::bare(code, ended))));
        assert_eq!(class("55000", true), Class::Transient);
        assert_eq!(class("55000", false), Class::Fatal);
        assert_eq!(class("55006", true), Class::Fatal);
        assert_eq!(class("23505", false), Class::Data);
    }

    fn all(codes: &[&str], class: Class) {
        for code in codes {
            assert_eq!(classify_sqlstate(code), class, "{code}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_transient() {
        all(
            &[
                "08000", "08001", "08003", "08004", "08006", "08007", "08P01", "25006", "25P02", "25P03",
                "25P04", "40001", "40003", "40P01", "53000", "53100", "53200", "53300", "53400", "55P03",
                "57014", "57P01", "57P02", "57P03", "57P05", "58030",
            ],
            Class::Transient,
        );
    }

    #[test]
    fn what_a_value_causes_is_data() {
        all(
            &[
                "21000", "22000", "22001", "22003", "22007", "22008", "22021", "22P02", "22P03", "22P05",
                "23000", "23502", "23503", "23505", "23514", "23P01", "54000", "54001", "P0001",
            ],
            Class::Data,
        );
    }

    #[test]
    fn what_an_operator_mends_is_configuration() {
        all(
            &[
                "0A000", "28000", "28P01", "3D000", "3F000", "42501", "42601", "42703", "42704", "42804",
                "42883", "42P01", "42P10",
            ],
            Class::Configuration,
        );
    }

    #[test]
    fn what_nobody_foresaw_is_fatal() {
        all(
            &[
                "00000", "25000", "25P01", "26000", "34000", "40000", "40002", "55000", "55006", "57000",
                "57P04", "58000", "58P01", "F0000", "HV000", "P0000", "P0004", "XX000", "XX001", "ZZZZZ", "",
                "2", "é",
            ],
            Class::Fatal,
        );
    }
}
