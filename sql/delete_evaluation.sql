DELETE FROM evaluations WHERE selection = $selection;
