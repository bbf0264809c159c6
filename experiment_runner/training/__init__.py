"""The inside of an epoch: optimiser steps, the development pass, and what is saved from them."""
