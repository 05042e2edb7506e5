"""Looking at a network without touching it: what it computes, how data flows, what is coupled."""
