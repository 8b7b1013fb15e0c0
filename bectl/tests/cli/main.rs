//! The binary as its users meet it: exit codes, bytes on standard output, what is on disk afterwards.

#[cfg(test)]
mod checking;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod datasets;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod entries;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod home;
#[cfg(test)]
mod init;
#[cfg(test)]
mod loading;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod removal;
#[cfg(test)]
mod safety;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod terminal;
