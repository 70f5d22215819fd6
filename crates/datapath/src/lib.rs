// SPDX-License-Identifier: Apache-2.0
//! The only kernel client: load, attach, pin, typed maps, netlink, events and fakes.
