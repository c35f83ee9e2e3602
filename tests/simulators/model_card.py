"""The least that a model card must say; it quotes the estimate ``sensitivity``."""

from __future__ import annotations

CARD_TOML = """
disclaimers = ["Not for patients."]

[developer]
name = "Tests"
contact = "None"

[release]
stage = "demonstration"
date = 2025-01-31
availability = "Nowhere"
regulatory_approval = "None."

[summary]
text = "Finds brightness."
keywords = ["test"]

[uses]
intended_use_and_workflow = "Tests."
primary_users = "Tests."
how_to_use = "Run the tests."
target_population = "None."
out_of_scope = ["Patients."]

[warnings]
cautions = ["It is a test."]
risks_and_limitations = ["It knows nothing."]
biases = ["Unknown."]
clinical_risk_level = "None"

[system]
outputs = "A logit."
model_type = "A mean."
input_data_source = "Generated."
data_types = "Numbers."
training_data = "None."
bias_mitigation = "None."
maintenance = "None."
security = "None."
transparency = "All."

[transparency]
funding = "None."
stakeholders = "None."

[resources]
patient_consent = "None needed."

[metrics.usefulness]
goal = "Show the form."
estimates = ["sensitivity"]
interpretation = "None."
test_type = "Internal"
testing_data = "Generated."
validation = "None: it is a form."

[metrics.fairness]
goal = "Show the form."
estimates = ["sensitivity"]
interpretation = "None."
test_type = "Internal"
testing_data = "Generated."
validation = "None: it is a form."

[metrics.safety]
goal = "Show the form."
estimates = ["sensitivity"]
interpretation = "None."
test_type = "Internal"
testing_data = "Generated."
validation = "None: it is a form."
"""
