//! Query API and console over schema `reports`.
