"""Search: kernels and indexes below the operators; each works on columns and knows no plan."""
