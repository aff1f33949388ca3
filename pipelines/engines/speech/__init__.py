"""Write down what is heard in the windows of many recordings at once."""
