// Tools for quantisers: exact conversions to small floats, and weighted least-squares fits of scales and
// offsets to blocks and superblocks of weights.
#pragma once

#include "apr/fit.hpp"
#include "apr/fit_affine.hpp"
#include "apr/small_floats.hpp"
#include "apr/superblock.hpp"
#include "apr/superblock_affine.hpp"
