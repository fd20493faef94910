//! The time of day.

use std::time::SystemTime;

use jiff::Timestamp;

/// Returns the current time, clamped to the years -9999 to 9999.
pub(crate) fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

fn timestamp(time: SystemTime) -> Timestamp {
    let bound = if time < SystemTime::UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(time).unwrap_or(bound)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wrong_clock_does_not_panic() {
        let epoch = SystemTime::UNIX_EPOCH;
        let ages = Duration::from_secs(1 << 40);
        assert_eq!(timestamp(epoch), Timestamp::UNIX_EPOCH);
        assert_eq!(timestamp(epoch + ages).strftime("%Y").to_string(), "9999");
        assert_eq!(timestamp(epoch - ages), Timestamp::MIN);
    }
}
