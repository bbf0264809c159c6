"""What happens inside an epoch: optimiser steps, the development pass, and what is saved of them."""
