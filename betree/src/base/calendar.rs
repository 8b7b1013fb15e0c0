//! Dates in UTC.

use std::fmt;
use std::time::SystemTime;

const SECONDS_OF_HOUR: i64 = 3600;
const SECONDS_OF_DAY: i64 = 24 * SECONDS_OF_HOUR;
/// Days of 400 years, after which the Gregorian calendar repeats itself.
const DAYS_OF_ERA: i64 = 146_097;
/// Days from the first of March of the year 0 to the first of January 1970.
const DAYS_TO_1970: i64 = 719_468;

/// An instant in UTC, to the second; prints as RFC 3339 has it: `2026-11-28T05:56:54Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcTime {
    /// Seconds since 1970.
    seconds: i64,
}

impl From<SystemTime> for UtcTime {
    fn from(time: SystemTime) -> Self {
        let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => {
                let before = before.duration();
                let seconds = before.as_secs() + u64::from(before.subsec_nanos() > 0);
                i64::try_from(seconds).map_or(i64::MIN, |seconds| -seconds)
            }
        };
        Self { seconds }
    }
}

impl UtcTime {
    /// Whole hours since 1970.
    #[must_use]
    pub fn hours(self) -> i64 {
        self.seconds.div_euclid(SECONDS_OF_HOUR)
    }

    /// Whole days since 1970.
    #[must_use]
    pub fn days(self) -> i64 {
        self.seconds.div_euclid(SECONDS_OF_DAY)
    }

    /// Mondays since 1970 began, which was a Thursday.
    #[must_use]
    pub fn weeks(self) -> i64 {
        (self.days() + 3).div_euclid(7)
    }

    /// Year, month and day, the latter two from 1.
    #[must_use]
    pub fn date(self) -> (i64, u8, u8) {
        // Years that begin in March have the day that not every year has at their end.
        let days = self.days() + DAYS_TO_1970;
        let (era, day) = (days.div_euclid(DAYS_OF_ERA), days.rem_euclid(DAYS_OF_ERA));
        let year = (day - day / 1460 + day / 36_524 - day / (DAYS_OF_ERA - 1)) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
        let january_counts = i64::from(month >= 10);
        let month = if month < 10 { month + 3 } else { month - 9 };
        (era * 400 + year + january_counts, month as u8, day_of_month as u8)
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let second = self.seconds.rem_euclid(SECONDS_OF_DAY);
        let (hour, minute) = (second / SECONDS_OF_HOUR, second / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: i64) -> UtcTime {
        UtcTime { seconds }
    }

    #[test]
    fn instants_print_as_others_print_them() {
        // As `date -u -d @N +%FT%TZ` has them.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_795_845_414, "2026-11-28T05:56:54Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(seconds).to_string(), text);
        }
    }

    /// Every day of 800 years follows the one before as calendars have it.
    #[test]
    fn days_follow_each_other() {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let mut expected = (1970, 1, 1);
        for day in 0..2 * DAYS_OF_ERA {
            assert_eq!(at(day * SECONDS_OF_DAY).date(), expected);
            let (year, month, day) = expected;
            let length = match month {
                2 if leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day == length) {
                (_, false) => (year, month, day + 1),
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
            };
        }
    }

    #[test]
    fn weeks_begin_on_mondays() {
        // The fourth of January 1970 was a Sunday.
        assert_eq!(at(4 * SECONDS_OF_DAY - 1).weeks(), at(0).weeks());
        assert_eq!(at(4 * SECONDS_OF_DAY).weeks(), at(0).weeks() + 1);
        assert_eq!(at(-3 * SECONDS_OF_DAY).weeks(), at(0).weeks());
        assert_eq!(at(-3 * SECONDS_OF_DAY - 1).weeks(), at(0).weeks() - 1);
    }

    #[test]
    fn any_instant_has_a_date() {
        for seconds in [i64::MIN, i64::MIN + 1, -1, i64::MAX] {
            assert!(!at(seconds).to_string().is_empty());
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(UtcTime::from(before), at(-1));
        assert_eq!(UtcTime::from(SystemTime::UNIX_EPOCH + Duration::from_millis(1999)), at(1));
    }
}
