//! Which snapshots stay when old ones are thinned out.

use super::handle::SnapshotInfo;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use std::collections::BTreeSet;
use std::fmt;
use std::time::SystemTime;

/// Which snapshots of a dataset to keep. Each number stands for itself: of the last so many hours (days, weeks, …) in which
/// there is a snapshot, the newest one stays. Hours and all else are those of UTC, weeks begin on Mondays. A snapshot may
/// count for several numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest snapshots, whenever they were made.
    pub last: u32,
    /// The newest snapshot of each of so many hours.
    pub hourly: u32,
    /// The newest snapshot of each of so many days.
    pub daily: u32,
    /// The newest snapshot of each of so many weeks.
    pub weekly: u32,
    /// The newest snapshot of each of so many months.
    pub monthly: u32,
    /// The newest snapshot of each of so many years.
    pub yearly: u32,
}

/// Why a snapshot stays: the first of these that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeepReason {
    /// It is one of the newest.
    Last,
    /// It is the newest of an hour.
    Hourly,
    /// It is the newest of a day.
    Daily,
    /// It is the newest of a week.
    Weekly,
    /// It is the newest of a month.
    Monthly,
    /// It is the newest of a year.
    Yearly,
    /// No number asks for it, but somebody holds it.
    Held,
    /// No number asks for it, but there are clones of it.
    Cloned,
    /// No number asks for it, but changes to it are being received.
    Receiving,
}

/// Year, and number in it, of the period that an instant lies in.
type Period = fn(DateTime) -> (i16, i16);

fn utc(time: SystemTime) -> DateTime {
    // What is later than the year 9999 is no time that a clock showed.
    Offset::UTC.to_datetime(Timestamp::try_from(time).unwrap_or(Timestamp::MAX))
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Held => "held",
            Self::Cloned => "cloned",
            Self::Receiving => "receiving",
        })
    }
}

impl Retention {
    /// Why each of `snapshots` stays; `None` for one that may be deleted. They are all of one dataset, oldest first, as
    /// [`Dataset::snapshots`](crate::Dataset::snapshots) returns them; which is newer is a matter of their order, not of
    /// clocks. What is held, cloned or received onto is never named for deletion.
    #[must_use]
    pub fn judge(&self, snapshots: &[SnapshotInfo]) -> Vec<Option<KeepReason>> {
        let rules: [(u32, KeepReason, Period); 5] = [
            (self.hourly, KeepReason::Hourly, |time| {
                (time.year(), time.day_of_year() * 24 + i16::from(time.hour()))
            }),
            (self.daily, KeepReason::Daily, |time| (time.year(), time.day_of_year())),
            (self.weekly, KeepReason::Weekly, |time| {
                let week = time.iso_week_date();
                (week.year(), week.week().into())
            }),
            (self.monthly, KeepReason::Monthly, |time| (time.year(), time.month().into())),
            (self.yearly, KeepReason::Yearly, |time| (time.year(), 0)),
        ];
        let mut reasons = vec![None; snapshots.len()];
        let last = usize::try_from(self.last).unwrap_or(usize::MAX);
        for reason in reasons.iter_mut().rev().take(last) {
            *reason = Some(KeepReason::Last);
        }
        for (number, why, period) in rules {
            // By value, not by comparing with the one before: a clock may have been set back.
            let mut seen = BTreeSet::new();
            for (snapshot, reason) in snapshots.iter().zip(&mut reasons).rev() {
                if seen.len() as u64 == u64::from(number) {
                    break;
                }
                if seen.insert(period(utc(snapshot.created))) {
                    reason.get_or_insert(why);
                }
            }
        }
        for (snapshot, reason) in snapshots.iter().zip(&mut reasons) {
            if !snapshot.clones.is_empty() {
                reason.get_or_insert(KeepReason::Cloned);
            } else if !snapshot.holds.is_empty() {
                reason.get_or_insert(KeepReason::Held);
            } else if snapshot.receiving {
                reason.get_or_insert(KeepReason::Receiving);
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    /// The first of January 2024, a Monday.
    const START: u64 = 1_704_067_200;

    fn snapshot(created: u64) -> SnapshotInfo {
        SnapshotInfo {
            name: created.to_string().into_bytes(),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(created),
            generation: created,
            referenced: 0,
            unique: 0,
            written: 0,
            guid: String::new(),
            holds: Vec::new(),
            clones: Vec::new(),
            receiving: false,
        }
    }

    fn snapshots(created: impl IntoIterator<Item = u64>) -> Vec<SnapshotInfo> {
        created.into_iter().map(snapshot).collect()
    }

    /// Positions of those that stay.
    fn kept(retention: Retention, snapshots: &[SnapshotInfo]) -> Vec<usize> {
        let reasons = retention.judge(snapshots);
        (0..reasons.len()).filter(|index| reasons[*index].is_some()).collect()
    }

    #[test]
    fn without_numbers_only_what_is_needed_stays() {
        let mut all = snapshots([START, START + 1, START + 2, START + 3]);
        assert_eq!(Retention::default().judge(&all), [None; 4]);
        all[1].holds.push(b"tag".to_vec());
        all[2].clones.push(b"clone".to_vec());
        all[2].holds.push(b"tag".to_vec());
        all[3].receiving = true;
        assert_eq!(Retention::default().judge(&all)[3], Some(KeepReason::Receiving));
        all[3].receiving = false;
        let (held, cloned) = (Some(KeepReason::Held), Some(KeepReason::Cloned));
        assert_eq!(Retention::default().judge(&all), [None, held, cloned, None]);
        // What a number asks for has that reason, and what is needed takes nobody's place.
        let last = Retention { last: 1, ..Retention::default() };
        assert_eq!(last.judge(&all), [None, held, cloned, Some(KeepReason::Last)]);
        assert_eq!(last.judge(&[]), []);
    }

    #[test]
    fn the_newest_of_each_period_stays() {
        // Every six hours for ten days: 40 snapshots, the last at 18:00 of a Wednesday.
        let all = snapshots((0..40).map(|number| START + number * 6 * HOUR));
        let of = |retention| kept(retention, &all);
        let none = Retention::default();
        assert_eq!(of(Retention { last: 3, ..none }), [37, 38, 39]);
        assert_eq!(of(Retention { hourly: 2, ..none }), [38, 39]);
        assert_eq!(of(Retention { daily: 3, ..none }), [31, 35, 39]);
        // The week that ended on Sunday the seventh, and the one that has begun.
        assert_eq!(of(Retention { weekly: 5, ..none }), [27, 39]);
        assert_eq!(of(Retention { monthly: 5, ..none }), [39]);
        assert_eq!(of(Retention { last: 100, ..none }).len(), 40);
        let all_rules = Retention { last: 1, hourly: 2, daily: 2, weekly: 2, monthly: 1, yearly: 1 };
        assert_eq!(of(all_rules), [27, 35, 38, 39]);
        let reasons = all_rules.judge(&all);
        let expected = [KeepReason::Weekly, KeepReason::Daily, KeepReason::Hourly, KeepReason::Last];
        assert_eq!([27, 35, 38, 39].map(|index: usize| reasons[index]), expected.map(Some));
    }

    #[test]
    fn periods_end_where_those_of_the_calendar_end() {
        // The last second of 2023, and the first of 2024: neither in one hour nor in one year, but next to each other.
        let all = snapshots([START - 2, START - 1, START]);
        let none = Retention::default();
        for retention in [
            Retention { hourly: 9, ..none },
            Retention { daily: 9, ..none },
            Retention { weekly: 9, ..none },
            Retention { monthly: 9, ..none },
            Retention { yearly: 9, ..none },
        ] {
            assert_eq!(kept(retention, &all), [1, 2], "{retention:?}");
        }
        // Months are not 30 days: 29 February and 1 March.
        let all = snapshots([START + 59 * DAY, START + 60 * DAY]);
        assert_eq!(kept(Retention { monthly: 2, ..none }, &all), [0, 1]);
        // One hour of two days is two hours.
        let all = snapshots([START, START + DAY]);
        assert_eq!(kept(Retention { hourly: 2, ..none }, &all), [0, 1]);
    }

    #[test]
    fn empty_periods_do_not_count() {
        let all = snapshots([START, START + 100 * DAY, START + 101 * DAY]);
        assert_eq!(kept(Retention { daily: 3, ..Retention::default() }, &all), [0, 1, 2]);
    }

    #[test]
    fn a_clock_that_went_back_keeps_no_more_and_loses_not_the_newest() {
        let all = snapshots([START + 9 * DAY, START + 9 * DAY + 1, START, START + 9 * DAY + 2, START + 1]);
        let daily = |daily| kept(Retention { daily, ..Retention::default() }, &all);
        assert_eq!((daily(1), daily(2), daily(9)), (vec![4], vec![3, 4], vec![3, 4]));
    }

    /// Pruning again with the same numbers removes nothing more.
    #[test]
    fn what_stayed_stays() {
        let mut all = snapshots((0..500).map(|number| START + number * number * 977));
        let retention = Retention { last: 3, hourly: 5, daily: 7, weekly: 4, monthly: 6, yearly: 2 };
        let reasons = retention.judge(&all);
        let mut index = 0;
        all.retain(|_| {
            index += 1;
            reasons[index - 1].is_some()
        });
        assert!(all.len() < 27 && retention.judge(&all).iter().all(Option::is_some));
    }
}
